// Copies the text that a button names.
"use strict";

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button, a");
  const copier = button?.querySelector("[data-copies]");
  if (!copier) return;
  event.preventDefault();
  await navigator.clipboard.writeText(document.getElementById(copier.dataset.copies).innerText);
  copier.textContent = "Copied";
});
