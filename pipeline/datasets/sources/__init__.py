"""One module per dataset, each with a constant `DATASET`; its file name is the dataset's name in `params/*.yaml`."""
