"""Checks of what a person would see: each inspects an open page and lists its problems."""

from __future__ import annotations

from pathlib import Path

from helpers.browser import Page

DESKTOP, PHONE = (1280, 900), (390, 844)  # CSS pixels
BODY_CONTRAST, LARGE_CONTRAST = 4.5, 3.0  # WCAG 2 AA
SMALLEST_TEXT = 12  # CSS pixels

# Tables without rows, cells without content or with what a program prints for a missing number.
_TABLES = r"""[...document.querySelectorAll('table')].flatMap(table => {
  const name = table.caption?.innerText ?? 'a table without caption', rows = [...table.querySelectorAll('tbody tr')];
  const bad = rows.flatMap(row => [...row.cells].filter(cell =>
    /^$|\b(NaN|nan|undefined|None|null|inf)\b/.test(cell.innerText.trim()) && cell.querySelector('img') === null));
  return [...(rows.length ? [] : [`${name}: no rows`]),
    ...bad.map(cell => `${name}: "${cell.innerText}" in row "${cell.parentElement.innerText}"`)];
})"""

# Pictures that did not load or have no alternative text.
_IMAGES = r"""[...document.images].flatMap(image => [
  ...(image.complete && image.naturalWidth > 0 ? [] : [`${image.alt}: not shown`]),
  ...(image.alt.trim() ? [] : [`${image.src.slice(0, 80)}: no alternative text`]),
])"""

_FOCUSABLE = "a[href], button, summary, input, select, textarea, [tabindex='0']"

_FOCUSED = r"""(() => {
  const one = document.activeElement, style = getComputedStyle(one), box = one.getBoundingClientRect();
  const x = (Math.max(box.left, 0) + Math.min(box.right, innerWidth)) / 2;
  const y = Math.max(box.top, 0) + Math.min(8, box.height / 2);  // what is taller than the window shows its top
  const above = document.elementFromPoint(x, y);
  return {index: window.focusable.indexOf(one), text: (one.innerText || one.ariaLabel || '').slice(0, 60),
    outlined: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0,
    visible: above !== null && (one.contains(above) || above.contains(one))};
})()"""

# A page to be scrolled sideways. What is wide by nature, a table or a figure, has a scroll box.
_OVERFLOW = r"""(() => {
  const shown = document.documentElement.clientWidth;
  const scrolls = one => one !== null && one !== document.body
    && (['auto', 'scroll'].includes(getComputedStyle(one).overflowX) || scrolls(one.parentElement));
  const wide = [...document.querySelectorAll('body *')].filter(one => {
    const box = one.getBoundingClientRect();
    return box.width > 0 && box.right > shown + 1 && getComputedStyle(one).position !== 'absolute' && !scrolls(one);
  });
  const page = document.documentElement.scrollWidth;
  return [...(page > shown ? [`the page is ${page} px wide in a window of ${shown} px`] : []),
    ...wide.map(one => `<${one.tagName} class="${one.className}"> ends at ${one.getBoundingClientRect().right} px`)];
})()"""

_TEXTS = r"""(() => {
  const parse = colour => { const n = colour.match(/[\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3]));
  const dark = document.querySelector('meta[name=color-scheme]')?.content.includes('dark')
    && matchMedia('(prefers-color-scheme: dark)').matches;
  const behind = one => {
    if (one === null) return dark ? [18, 18, 18] : [255, 255, 255];
    const own = parse(getComputedStyle(one).backgroundColor);
    return own[3] === 1 ? own.slice(0, 3) : over(own, behind(one.parentElement));
  };
  const light = colour => colour.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const one = node.parentElement, style = getComputedStyle(one);
    const range = document.createRange();
    range.selectNodeContents(node);
    if (!node.data.trim() || !range.getClientRects().length || style.visibility === 'hidden' || style.opacity === '0')
      continue;
    const back = behind(one), pair = [light(over(parse(style.color), back)), light(back)].sort((a, b) => b - a);
    const size = parseFloat(style.fontSize), bold = parseInt(style.fontWeight) >= 700;
    found.push({text: node.data.trim().slice(0, 60), size, contrast: (pair[0] + 0.05) / (pair[1] + 0.05),
      large: size >= 24 || (bold && size >= 18.66)});
  }
  return {texts: found, paper: light(behind(document.body))};
})()"""


def page_problems(page: Page, path: Path) -> list[str]:
    """Everything that is wrong with the HTML file `path`: the checks below on a desktop and a phone, light and dark."""
    problems = []
    for width, height in (DESKTOP, PHONE):
        for scheme in ("light", "dark"):
            page.resize(width, height, mobile=(width, height) == PHONE)
            page.prefer(scheme)
            page.open(path.resolve().as_uri())
            found = list(page.problems)
            for check in (_TABLES, _IMAGES, _OVERFLOW):
                found += page.evaluate(check)
            found += [*text_problems(page, scheme), *keyboard_problems(page)]
            problems += [f"{width} px, {scheme}: {problem}" for problem in found]
    return problems


def text_problems(page: Page, scheme: str) -> list[str]:
    """Text too faint for WCAG 2 AA or too small; paper that is not of the scheme asked for."""
    found = page.evaluate(_TEXTS)
    problems = [] if (found["paper"] < 0.2) == (scheme == "dark") else [f"the paper is not {scheme}"]
    for text in found["texts"]:
        needed = LARGE_CONTRAST if text["large"] else BODY_CONTRAST
        if text["contrast"] < needed:
            problems.append(f"contrast {text['contrast']:.2f}, {needed} needed: {text['text']}")
        if text["size"] < SMALLEST_TEXT:
            problems.append(f"{text['size']:g} px, {SMALLEST_TEXT} needed: {text['text']}")
    return problems


def keyboard_problems(page: Page) -> list[str]:
    """What Tab does not reach, reaches out of order, without an outline, or where something else covers it."""
    count = page.evaluate(f'(window.focusable = [...document.querySelectorAll("{_FOCUSABLE}")]).length')
    problems = []
    for index in range(count):
        page.press("Tab", 9)
        focused = page.evaluate(_FOCUSED)
        if focused["index"] != index:
            return [*problems, f"Tab number {index + 1} leads to element {focused['index'] + 1}: {focused['text']}"]
        problems += [f"no outline: {focused['text']}"] if not focused["outlined"] else []
        problems += [f"covered or out of sight: {focused['text']}"] if not focused["visible"] else []
    return problems
