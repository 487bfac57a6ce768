// Listens to the event stream of each element <... data-live="/api/v1/studies/NAME/events"> (at most 3 on a page, since
// browsers allow few connections) and tells the element's parts of what changed:
//   event "changed" and event "log" on the element, their data as `detail`
//   [data-figure="evaluations"] within it shows that figure; progress[data-figure] its value
// Without changes nothing is fetched. The browser connects again by itself when a stream breaks.
"use strict";
const live = (function () {
  const MOST = 3;
  const open = new Map();
  function show(root, figures) {
    root.querySelectorAll("[data-figure]").forEach(function (element) {
      const value = figures[element.dataset.figure];
      if (value === undefined) return;
      if (element.tagName === "PROGRESS") element.value = value || 0;
      else element.textContent = formatted(value, element.dataset.format);
    });
  }
  function formatted(value, format) {
    if (value === null) return "–";
    if (format === "duration") return duration(value);
    if (format === "count") return Number(value).toLocaleString("en");
    if (format === "figure") return String(Number(Number(value).toPrecision(4)));
    return String(value);
  }
  function duration(seconds) {
    if (!isFinite(seconds) || seconds < 0) return "–";
    if (seconds < 60) return seconds.toFixed(seconds < 10 ? 1 : 0) + " s";
    const whole = Math.round(seconds);
    const two = function (n) { return String(n).padStart(2, "0"); };
    if (whole < 3600) return Math.floor(whole / 60) + " min " + two(whole % 60) + " s";
    return Math.floor(whole / 3600) + " h " + two(Math.floor((whole % 3600) / 60)) + " min";
  }
  function listen(element) {
    const url = element.dataset.live;
    if (!url || open.has(element) || open.size >= MOST) return;
    const source = new EventSource(url);
    open.set(element, source);
    ["changed", "log"].forEach(function (kind) {
      source.addEventListener(kind, function (event) {
        let detail;
        try { detail = JSON.parse(event.data); } catch (error) { return; }
        if (kind === "changed") show(element, detail);
        element.dispatchEvent(new CustomEvent(kind, { detail: detail }));
      });
    });
  }
  function close(element) {
    const source = open.get(element);
    if (source) source.close();
    open.delete(element);
  }
  function all() { document.querySelectorAll("[data-live]").forEach(listen); }
  document.addEventListener("DOMContentLoaded", all);
  addEventListener("pagehide", function () { Array.from(open.keys()).forEach(close); });
  addEventListener("pageshow", function (event) { if (event.persisted) all(); });
  return { listen: listen, close: close, all: all, duration: duration };
})();
