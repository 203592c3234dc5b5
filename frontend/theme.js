// Runs before the first paint (a plain script, not a module), so that no page flashes in the wrong theme.
(() => {
  const system = matchMedia("(prefers-color-scheme: light)");
  let chosen = null;
  // Storage throws where a browser forbids it; the page then simply forgets the choice.
  try { chosen = localStorage.getItem("medsearch-theme"); } catch { /* not allowed */ }

  function show() {
    const theme = chosen ?? (system.matches ? "light" : "dark");
    document.documentElement.dataset.theme = theme;
    const other = theme === "dark" ? "Light" : "Dark";
    document.getElementById("theme")?.setAttribute("aria-label", `${other} theme`);
  }

  show();
  system.addEventListener("change", show);
  document.addEventListener("DOMContentLoaded", () => {
    show();
    document.getElementById("theme").addEventListener("click", () => {
      chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
      try { localStorage.setItem("medsearch-theme", chosen); } catch { /* not allowed */ }
      show();
    });
  });
})();
