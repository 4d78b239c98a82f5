// Before the first paint: the theme that was chosen here, else the system's.
"use strict";
(() => {
  const KEY = "kasaga-theme";
  const root = document.documentElement;
  const kept = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // storage is switched off: the choice lasts as long as the page
    }
  };
  const chosen = kept();
  if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const system = matchMedia("(prefers-color-scheme: dark)");
    const now = () => root.dataset.theme ?? (system.matches ? "dark" : "light");
    const label = () => {
      button.textContent = now() === "dark" ? "Light theme" : "Dark theme";
    };
    button.addEventListener("click", () => {
      root.dataset.theme = now() === "dark" ? "light" : "dark";
      try {
        localStorage.setItem(KEY, root.dataset.theme);
      } catch {
        // as above
      }
      label();
    });
    system.addEventListener("change", label);
    label();
    button.hidden = false;
  });
})();
