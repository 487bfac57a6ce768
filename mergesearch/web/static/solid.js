// Three objectives as points in space that one can turn: drag, or arrow keys. Drawn on a canvas, since WebGL is neither
// everywhere nor allowed by the pages' policy. Takes Plotly's scatter3d traces.
"use strict";
const solid = (function () {
  const SHAPES = {
    "square": function (c, r) { c.rect(-r, -r, 2 * r, 2 * r); },
    "diamond": function (c, r) { c.moveTo(0, -1.3 * r); c.lineTo(1.3 * r, 0); c.lineTo(0, 1.3 * r); c.lineTo(-1.3 * r, 0); c.closePath(); },
    "cross": function (c, r) { c.rect(-r, -r / 3, 2 * r, r / 1.5); c.rect(-r / 3, -r, r / 1.5, 2 * r); },
    "circle": function (c, r) { c.arc(0, 0, r, 0, 7); },
  };
  const AXES = ["x", "y", "z"];
  function ends(traces) {
    return AXES.map(function (axis) {
      let low = Infinity, high = -Infinity;
      traces.forEach(function (t) { t[axis].forEach(function (v) { if (v !== null) { low = Math.min(low, v); high = Math.max(high, v); } }); });
      return high > low ? [low, high] : [low - 1, high + 1];
    });
  }
  function draw(element, traces, layout, css) {
    let state = element.solid;
    if (!state || !element.contains(state.canvas)) state = element.solid = start(element);
    state.traces = traces;
    state.names = AXES.map(function (axis) { return layout.scene[axis + "axis"].title.text; });
    state.ends = ends(traces);
    state.css = css;
    legend(state);
    paint(state);
  }
  function start(element) {
    const canvas = document.createElement("canvas");
    const legend = document.createElement("div");
    const tip = document.createElement("div");
    legend.className = "solid-legend";
    tip.className = "solid-tip hidden";
    canvas.className = "solid";
    canvas.tabIndex = 0;
    canvas.setAttribute("aria-label", "Drag, or use the arrow keys, to turn the picture");
    element.replaceChildren(legend, canvas, tip);
    const state = { element: element, canvas: canvas, legend: legend, tip: tip, turn: 0.7, tilt: 0.45, places: [] };
    let from = null, moved = false;
    canvas.addEventListener("pointerdown", function (e) { from = [e.clientX, e.clientY]; moved = false; canvas.setPointerCapture(e.pointerId); });
    canvas.addEventListener("pointermove", function (e) {
      if (!from) { hover(state, e); return; }
      const dx = e.clientX - from[0], dy = e.clientY - from[1];
      if (Math.abs(dx) + Math.abs(dy) > 2) moved = true;
      from = [e.clientX, e.clientY];
      rotate(state, dx * 0.01, dy * 0.01);
    });
    canvas.addEventListener("pointerup", function (e) {
      from = null;
      const found = moved ? null : nearest(state, e);
      if (found) charts.open(element, found.number);
    });
    canvas.addEventListener("pointerleave", function () { tip.classList.add("hidden"); });
    canvas.addEventListener("keydown", function (e) {
      const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] }[e.key];
      if (step) { e.preventDefault(); rotate(state, step[0], step[1]); }
    });
    new ResizeObserver(function () { if (state.traces) paint(state); }).observe(element);
    return state;
  }
  function rotate(state, turn, tilt) {
    state.turn += turn;
    state.tilt = Math.min(1.5, Math.max(-1.5, state.tilt + tilt));
    paint(state);
  }
  function legend(state) {
    state.legend.replaceChildren.apply(state.legend, state.traces.filter(function (t) { return t.showlegend !== false; }).map(function (trace) {
      const item = document.createElement("span"), dot = document.createElement("i");
      dot.style.border = "2px solid " + trace.marker.color;
      if (!String(trace.marker.symbol).endsWith("-open")) dot.style.background = trace.marker.color;
      item.append(dot, trace.name);
      return item;
    }));
  }
  function paint(state) {
    const box = state.canvas.getBoundingClientRect(), ratio = devicePixelRatio || 1;
    state.canvas.width = Math.max(1, box.width * ratio);
    state.canvas.height = Math.max(1, box.height * ratio);
    const c = state.canvas.getContext("2d"), size = Math.min(box.width, box.height) * 0.31;
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    const cos = Math.cos(state.turn), sin = Math.sin(state.turn), up = Math.cos(state.tilt), over = Math.sin(state.tilt);
    function at(p) { // p in -1 to 1 each; z is up
      const x = p[0] * cos - p[1] * sin, y = p[0] * sin + p[1] * cos;
      return [box.width / 2 + size * x, box.height / 2 - size * (p[2] * up - y * over), y * up + p[2] * over];
    }
    function scaled(values) {
      return values.map(function (v, i) { const e = state.ends[i]; return 2 * (v - e[0]) / (e[1] - e[0]) - 1; });
    }
    c.font = "12px " + getComputedStyle(document.body).fontFamily;
    frame(c, at, state);
    const found = [];
    state.traces.forEach(function (trace, rank) {
      trace.x.forEach(function (_, i) {
        const values = [trace.x[i], trace.y[i], trace.z[i]];
        if (values.includes(null)) return;
        const place = at(scaled(values));
        found.push({ x: place[0], y: place[1], depth: place[2], rank: rank, trace: trace, number: trace.customdata[i], text: trace.text[i] });
      });
    });
    found.sort(function (a, b) { return (a.rank > 1 || b.rank > 1 ? a.rank - b.rank : 0) || b.depth - a.depth; });
    found.forEach(function (p) {
      const marker = p.trace.marker, symbol = String(marker.symbol || "circle"), hollow = symbol.endsWith("-open");
      const near = 1 - 0.25 * Math.max(-1, Math.min(1, p.depth / 1.7));
      c.save();
      c.translate(p.x, p.y);
      c.globalAlpha = marker.opacity || 1;
      c.beginPath();
      (SHAPES[symbol.replace("-open", "")] || SHAPES.circle)(c, marker.size * near);
      c.fillStyle = c.strokeStyle = marker.color;
      c.lineWidth = 2;
      if (hollow) c.stroke(); else c.fill();
      c.restore();
    });
    state.places = found;
  }
  function frame(c, at, state) {
    const faint = state.css("--faint"), grid = state.css("--grid"), ink = state.css("--ink");
    c.lineWidth = 1;
    for (let axis = 0; axis < 3; axis++) {
      for (let corner = 0; corner < 4; corner++) {
        const from = [0, 0, 0], others = [0, 1, 2].filter(function (a) { return a !== axis; });
        from[others[0]] = corner & 1 ? 1 : -1;
        from[others[1]] = corner & 2 ? 1 : -1;
        const to = from.slice();
        from[axis] = -1;
        to[axis] = 1;
        const a = at(from), b = at(to);
        c.strokeStyle = corner === 0 ? faint : grid;
        c.beginPath(); c.moveTo(a[0], a[1]); c.lineTo(b[0], b[1]); c.stroke();
        if (corner !== 0) continue;
        c.textAlign = "center";
        c.fillStyle = ink;
        const label = at(to.map(function (v, i) { return i === axis ? 0 : v * 1.22; }));
        c.fillText(text(state.names[axis]), label[0], label[1] + 4);
        c.fillStyle = faint;
        [[from, 0], [to, 1]].forEach(function (end) {
          const p = at(end[0].map(function (v, i) { return i === axis ? v * 0.92 : v * 1.1; }));
          c.fillText(String(Number(state.ends[axis][end[1]].toPrecision(3))), p[0], p[1] + 4);
        });
      }
    }
  }
  function text(escaped) {
    return escaped.replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
  }
  function nearest(state, event) {
    const box = state.canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    let best = null, least = 144;
    state.places.forEach(function (p) {
      const d = (p.x - x) * (p.x - x) + (p.y - y) * (p.y - y);
      if (d <= least) { least = d; best = p; }
    });
    return best;
  }
  function hover(state, event) {
    const found = nearest(state, event);
    state.tip.classList.toggle("hidden", !found);
    state.canvas.style.cursor = found ? "pointer" : "grab";
    if (!found) return;
    state.tip.textContent = text(found.text.replace(/<br>/g, "\n").replace(/<\/?b>/g, ""));
    const width = state.element.clientWidth;
    state.tip.style.left = Math.min(found.x + 14, Math.max(0, width - 190)) + "px";
    state.tip.style.top = found.y + state.canvas.offsetTop + 10 + "px";
  }
  return { draw: draw };
})();
