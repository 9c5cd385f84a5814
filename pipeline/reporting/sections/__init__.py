"""One module per chapter; each offers `section(analysis) -> Section` and draws its own figures."""
