"""What every page owes its visitors: it fits, everything has a name and can be reached by keyboard, focus is seen."""

from itertools import pairwise
from typing import Any

from playwright.sync_api import Page

SMALLEST_TARGET = 24  # CSS pixels, WCAG 2.2 criterion 2.5.8; links within sentences are free of it

# A name as screen readers take it, near enough: label, aria-label(ledby), text, title, alt.
NAMELESS = """() => {
  const seen = e => { const s = getComputedStyle(e); return e.getClientRects().length && s.visibility !== 'hidden'; };
  const text = e => (e.textContent || '').trim();
  const name = e => {
    const ids = (e.getAttribute('aria-labelledby') || '').split(/\\s+/);
    const by = ids.map(id => document.getElementById(id)).filter(Boolean);
    if (by.length) return by.map(text).join(' ').trim();
    if ((e.getAttribute('aria-label') || '').trim()) return e.getAttribute('aria-label');
    if (e.labels && e.labels.length) return [...e.labels].map(text).join(' ').trim();
    if (e.tagName === 'INPUT' && ['submit', 'button', 'reset'].includes(e.type)) return e.value;
    const images = [...e.querySelectorAll('img[alt], svg[aria-label], svg title')];
    return text(e) || (e.getAttribute('title') || '').trim() || images.map(i => i.alt || i.textContent).join('').trim();
  };
  const wanted = 'a[href], button, input:not([type=hidden]), select, textarea, summary, progress, meter, ' +
    '[role=button], [role=slider], [role=tab], [role=img], .chart, dialog, table';
  const titled = e => e.caption || e.getAttribute('aria-label') || e.getAttribute('aria-labelledby');
  return [...document.querySelectorAll(wanted)].filter(e => seen(e) && !e.closest('.js-plotly-plot .modebar'))
    .filter(e => e.tagName === 'TABLE' ? !titled(e) : !name(e))
    .map(e => e.outerHTML.slice(0, 160));
}"""

OVERFLOW = """() => {
  const wide = document.documentElement.clientWidth, found = [];
  if (document.documentElement.scrollWidth <= wide + 1) return found;
  for (const e of document.querySelectorAll('body *')) {
    const box = e.getBoundingClientRect();
    if (box.right > wide + 1 && box.width) {
      let inner = false;
      for (let p = e.parentElement; p && p !== document.body; p = p.parentElement)
        if (['auto', 'scroll', 'hidden', 'clip'].includes(getComputedStyle(p).overflowX)) inner = true;
      if (!inner) found.push(e.tagName + '.' + (e.getAttribute('class') || '') + ' ends at ' + Math.round(box.right));
    }
  }
  return found.length ? found : ['the page is ' + document.documentElement.scrollWidth + ' wide'];
}"""

# A smaller one will do if a circle of that size around it touches no other.
SMALL = """smallest => {
  const boxes = [...document.querySelectorAll('a[href], button, input, select, textarea, summary')].filter(e => {
    const style = getComputedStyle(e);
    return e.getBoundingClientRect().width && style.visibility !== 'hidden' && !e.closest('.modebar') &&
      !e.matches('.skip, .sr, [type=hidden]');
  }).map(e => ({e: e, box: (e.closest('label') || e).getBoundingClientRect()}));
  const near = (box, other) => {
    const x = (box.left + box.right) / 2, y = (box.top + box.bottom) / 2;
    const dx = Math.max(other.left - x, 0, x - other.right), dy = Math.max(other.top - y, 0, y - other.bottom);
    return Math.hypot(dx, dy) < smallest / 2;
  };
  return boxes.filter(one => {
    const style = getComputedStyle(one.e), box = one.box;
    if (box.height >= smallest - 0.5 && box.width >= smallest - 0.5) return false;
    if (style.display.startsWith('inline') && one.e.tagName === 'A' && one.e.closest('p, li, dd, td')) return false;
    return boxes.some(other => other.e !== one.e && near(box, other.box));
  }).map(one => one.e.outerHTML.slice(0, 120) + ' ' + Math.round(one.box.width) + 'x' + Math.round(one.box.height));
}"""

FOCUSED = """() => {
  const e = document.activeElement;
  if (!e || e === document.body) return null;
  const box = e.getBoundingClientRect();
  const ringed = [e, e.parentElement, ...(e.labels || [])].some(one => { // a field's frame or label may show it for it
    const style = getComputedStyle(one);
    return (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0) ||
      (one === e && style.boxShadow !== 'none');
  });
  e.dataset.reached = '1';
  return {what: e.outerHTML.slice(0, 120), ringed: ringed, width: box.width, height: box.height};
}"""

# Where Tab goes on from is where the focus was last, also after blur(): a page may have focused a field by itself.
FROM_THE_TOP = """() => {
  const first = document.createElement('span');
  first.tabIndex = -1;
  document.body.prepend(first);
  first.focus({preventScroll: true});
  first.remove();
  scrollTo(0, 0);
}"""

UNREACHED = """() => [
  ...document.querySelectorAll('a[href], button, input:not([type=hidden]), select, textarea, summary')
].filter(e => e.checkVisibility({visibilityProperty: true}) && !e.disabled &&
    !e.dataset.reached && !e.closest('.modebar') && e.tabIndex >= 0 && !(e.type === 'radio' && !e.checked))
  .map(e => e.outerHTML.slice(0, 120))"""

STRUCTURE = """() => ({
  lang: document.documentElement.lang, title: document.title, mains: document.querySelectorAll('main').length,
  headings: [...document.querySelectorAll('h1, h2, h3, h4')].map(e => +e.tagName[1]),
  ids: [...document.querySelectorAll('[id]')].filter(e => !e.closest('svg, .js-plotly-plot')).map(e => e.id),
  inline: document.querySelectorAll('script:not([src]):not([type="application/json"])').length,
})"""


def audit(page: Page) -> list[str]:
    """Sentences about what is wrong with the page as it stands; none if all is well."""
    found = [f"wider than the window: {what}" for what in page.evaluate(OVERFLOW)]
    found += [f"has no name: {what}" for what in page.evaluate(NAMELESS)]
    found += [f"too small to touch: {what}" for what in page.evaluate(SMALL, SMALLEST_TARGET)]
    seen: dict[str, Any] = page.evaluate(STRUCTURE)
    found += [] if seen["lang"] else ["the page does not say its language"]
    found += [] if seen["title"] else ["the page has no title"]
    found += [] if seen["mains"] == 1 else [f"{seen['mains']} main regions"]
    found += [] if seen["inline"] == 0 else [f"{seen['inline']} inline scripts"]
    found += [f"the id {one!r} stands twice" for one in sorted({i for i in seen["ids"] if seen["ids"].count(i) > 1})]
    levels = seen["headings"]
    found += [] if levels.count(1) == 1 else [f"{levels.count(1)} headings of the first level"]
    found += [f"a heading h{b} follows h{a}" for a, b in pairwise(levels) if b > a + 1]
    return found


def by_keyboard(page: Page, most: int = 400) -> list[str]:
    """Press Tab through the whole page: sentences about what has no visible focus or is never reached."""
    found: list[str] = []
    page.bring_to_front()  # a page that the browser holds for hidden moves no focus
    page.evaluate(FROM_THE_TOP)
    for _ in range(most):
        page.keyboard.press("Tab")
        at = page.evaluate(FOCUSED)
        if at is None:
            break
        if not at["ringed"]:
            found.append(f"focus is not seen on {at['what']}")
    return found + [f"cannot be reached with Tab: {what}" for what in page.evaluate(UNREACHED)]
