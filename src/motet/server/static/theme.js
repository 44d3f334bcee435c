// Before anything is drawn: the colours that were chosen last time. A plain script, so that the page does not flash.
try {
  const theme = localStorage.getItem("motet.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // no storage: the system's colours
}
