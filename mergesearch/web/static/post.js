// What changes something. <button data-post="/api/v1/..."> sends its data-body (JSON) once it is clicked, after the
// question in data-confirm if there is one; data-form names a form whose fields are the body instead, empty ones left
// out. What the server answers is said in a live region. On success the button emits `posted` (detail: the answer), and
// data-then is done: "reload", or an address in which {key} is taken from the answer. Who is not signed in is taken
// to /login and back. Scripts call `posting.send(url, body, method)`, which gives the answer or throws with a sentence.
"use strict";
const posting = (function () {
  function csrf() {
    const found = document.querySelector('meta[name="csrf-token"]');
    return found ? found.content : "";
  }
  function region() {
    let found = document.getElementById("toasts");
    if (!found) {
      found = document.createElement("div");
      found.id = found.className = "toasts";
      found.setAttribute("role", "status");
      found.setAttribute("aria-live", "polite");
      document.body.append(found);
    }
    return found;
  }
  function say(text, bad) {
    const toast = document.createElement("div");
    toast.className = bad ? "toast bad" : "toast good";
    toast.textContent = text;
    region().append(toast);
    setTimeout(function () { toast.remove(); }, bad ? 15000 : 6000);
  }
  function signIn() {
    location.href = "/login?next=" + encodeURIComponent(location.pathname + location.search);
  }
  async function send(url, body, method) {
    const headers = { Accept: "application/json", "X-CSRF-Token": csrf() };
    const request = { method: method || "POST", headers: headers, credentials: "same-origin" };
    if (body !== undefined && body !== null) {
      headers["Content-Type"] = "application/json";
      request.body = JSON.stringify(body);
    }
    let answer;
    try {
      answer = await fetch(url, request);
    } catch (error) {
      throw new Error("the server does not answer; is it still running?");
    }
    const text = await answer.text();
    let value = null;
    try { value = text ? JSON.parse(text) : null; } catch (error) { value = null; }
    if (answer.status === 401 && url !== "/api/v1/session") {
      signIn();
      throw new Error("sign in first");
    }
    if (!answer.ok) throw new Error((value && value.detail) || "the server answered " + answer.status);
    return value;
  }
  function fields(form) {
    const body = {};
    for (const field of form.elements) {
      if (!field.name || field.value === "") continue;
      if (field.type === "checkbox") body[field.name] = field.checked;
      else if (field.type === "number") body[field.name] = Number(field.value);
      else body[field.name] = field.value;
    }
    return body;
  }
  function bodyOf(button) {
    if (button.dataset.form) return fields(document.querySelector(button.dataset.form));
    return button.dataset.body ? JSON.parse(button.dataset.body) : {};
  }
  async function press(button) {
    if (button.getAttribute("aria-busy") === "true") return;
    if (button.dataset.form && !document.querySelector(button.dataset.form).reportValidity()) return;
    if (button.dataset.confirm && !window.confirm(button.dataset.confirm)) return;
    button.setAttribute("aria-busy", "true");
    button.setAttribute("aria-disabled", "true");
    try {
      const value = await send(button.dataset.post, bodyOf(button), button.dataset.method);
      say((value && (value.sentence || value.detail)) || button.dataset.done || "done");
      button.dispatchEvent(new CustomEvent("posted", { bubbles: true, detail: value }));
      then(button.dataset.then, value || {});
    } catch (error) {
      say(error.message, true);
    } finally {
      button.removeAttribute("aria-busy");
      button.removeAttribute("aria-disabled");
    }
  }
  function then(what, value) {
    if (what === "reload") location.reload();
    else if (what) location.href = what.replace(/\{(\w+)\}/g, function (_, key) { return encodeURIComponent(value[key]); });
  }
  document.addEventListener("click", function (event) {
    const button = event.target.closest ? event.target.closest("[data-post]") : null;
    if (button) press(button);
  });
  document.addEventListener("submit", function (event) {
    const button = event.target.querySelector("[data-post]");
    if (!button) return;
    event.preventDefault();
    press(button);
  });
  document.addEventListener("DOMContentLoaded", region); // a live region must be there before it is filled
  return { send: send, say: say, signIn: signIn };
})();
