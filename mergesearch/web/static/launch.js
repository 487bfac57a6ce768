// The launch page: line numbers beside the text, a file read in the browser, findings beside their lines, launching.
"use strict";
document.addEventListener("DOMContentLoaded", function () {
  const KEPT = "study-file"; // the draft, so that signing in or coming back loses nothing
  const text = document.getElementById("text");
  const gutter = document.getElementById("gutter");
  const verdict = document.getElementById("verdict");
  const list = document.getElementById("findings");
  const checking = document.getElementById("check");
  const profile = document.getElementById("profile");
  const launching = document.getElementById("launch");
  const example = document.getElementById("example-text").content.textContent;
  let marks = new Map();

  function number() {
    const lines = text.value.split("\n").length;
    const spans = document.createDocumentFragment();
    for (let line = 1; line <= lines; line += 1) {
      const span = document.createElement("span");
      span.textContent = line;
      if (marks.has(line)) span.className = marks.get(line);
      spans.append(span);
    }
    gutter.replaceChildren(spans);
    gutter.scrollTop = text.scrollTop;
  }
  function changed() {
    sessionStorage.setItem(KEPT, text.value);
    marks = new Map();
    number();
    if (list.children.length) verdict.textContent = "The file has changed since it was checked.";
  }
  function fill(value) {
    text.value = value;
    changed();
    list.replaceChildren();
    verdict.textContent = "Not checked yet.";
  }
  function goTo(line) {
    const before = text.value.split("\n").slice(0, line - 1).join("\n").length;
    const start = line > 1 ? before + 1 : 0;
    const end = text.value.indexOf("\n", start);
    text.focus();
    text.setSelectionRange(start, end < 0 ? text.value.length : end);
    text.scrollTop = Math.max(0, (line - 6) * 20);
  }
  function show(checked) {
    const order = ["error", "warning", "ok"];
    marks = new Map();
    const items = checked.findings.slice().sort(function (a, b) { return order.indexOf(a.level) - order.indexOf(b.level); });
    list.replaceChildren();
    for (const finding of items) {
      const item = document.createElement("li");
      item.className = finding.level;
      const word = document.createElement("b");
      word.textContent = { error: "Error", warning: "Warning", ok: "Fine" }[finding.level];
      item.append(word, " ");
      if (finding.line) {
        const jump = document.createElement("button");
        jump.type = "button";
        jump.className = "plain";
        jump.textContent = "line " + finding.line;
        jump.addEventListener("click", function () { goTo(finding.line); });
        item.append(jump);
        if (!marks.has(finding.line)) marks.set(finding.line, finding.level);
      }
      item.append(finding.sentence);
      list.append(item);
    }
    const errors = items.filter(function (finding) { return finding.level === "error"; }).length;
    const axes = checked.axes ? " " + checked.axes + " numbers are searched." : "";
    verdict.textContent = checked.ok ? "The study can be launched." + axes :
      errors + (errors === 1 ? " thing has" : " things have") + " to be mended first.";
    number();
  }
  async function during(button, words, act) {
    if (button.getAttribute("aria-busy") === "true") return;
    button.setAttribute("aria-busy", "true");
    verdict.textContent = words;
    try {
      await act();
    } catch (error) {
      verdict.textContent = error.message;
    } finally {
      button.removeAttribute("aria-busy");
    }
  }
  async function check() {
    const checked = await posting.send("/api/v1/check", { text: text.value });
    show(checked);
    return checked.ok;
  }
  checking.addEventListener("click", function () {
    during(checking, "Checking: the models' headers and the data are looked at; this takes some seconds …", check);
  });
  launching.addEventListener("click", function () {
    during(launching, "Checking before the launch …", async function () {
      if (!(await check())) return;
      verdict.textContent = "Launching …";
      const started = await posting.send("/api/v1/studies", { text: text.value, profile: profile.value });
      sessionStorage.removeItem(KEPT);
      location.href = "/jobs/" + encodeURIComponent(started.job) + "?follow=1";
    });
  });
  profile.addEventListener("change", function () {
    document.getElementById("explanation").textContent = profile.selectedOptions[0].dataset.text;
  });
  document.getElementById("upload").addEventListener("change", async function (event) {
    const file = event.target.files[0];
    if (!file) return;
    if (file.size > text.maxLength) verdict.textContent = "The file is larger than a study file may be.";
    else fill(await file.text());
    event.target.value = "";
  });
  document.getElementById("example").addEventListener("click", function () {
    if (!text.value.trim() || text.value === example || window.confirm("Replace what is written by the example?")) fill(example);
  });
  text.addEventListener("input", changed);
  text.addEventListener("scroll", function () { gutter.scrollTop = text.scrollTop; });
  text.value = sessionStorage.getItem(KEPT) || example;
  number();
});
