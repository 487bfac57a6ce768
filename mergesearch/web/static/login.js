// Signs in with the token that was typed, or that the link carries behind '#'; it is taken out of the address at once.
"use strict";
document.addEventListener("DOMContentLoaded", function () {
  const form = document.getElementById("login");
  const field = document.getElementById("token");
  const wrong = document.getElementById("wrong");
  const given = decodeURIComponent(location.hash.slice(1));
  if (given) history.replaceState(null, "", location.pathname + location.search);

  async function signIn(token) {
    wrong.hidden = true;
    try {
      await posting.send("/api/v1/session", { token: token });
      location.replace(form.dataset.next);
    } catch (error) {
      wrong.textContent = error.message;
      wrong.hidden = false;
      field.focus();
    }
  }
  form.addEventListener("submit", function (event) {
    event.preventDefault();
    signIn(field.value.trim());
  });
  if (given) signIn(given);
  else field.focus();
});
