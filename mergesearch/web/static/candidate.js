// Downloads that the server may refuse: <a href="URL" data-download="FILE">. The file is fetched first, so that a refusal
// is a sentence on the page instead of a strange file.
"use strict";
(function () {
  function save(blob, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(function () { URL.revokeObjectURL(link.href); }, 10000);
  }
  async function fetched(link) {
    const text = link.textContent;
    link.setAttribute("aria-busy", "true");
    link.textContent = "Reading the models …";
    try {
      const answer = await fetch(link.href, { credentials: "same-origin" });
      if (answer.status === 401) return posting.signIn();
      if (!answer.ok) throw new Error((await answer.json()).detail);
      save(await answer.blob(), link.dataset.download);
    } catch (error) {
      posting.say(error.message, true);
    } finally {
      link.textContent = text;
      link.removeAttribute("aria-busy");
    }
  }
  document.addEventListener("click", function (event) {
    const link = event.target.closest ? event.target.closest("[data-download]") : null;
    if (!link) return;
    event.preventDefault();
    if (link.getAttribute("aria-busy") !== "true") fetched(link);
  });
})();
