// Before the first paint, so that a page kept dark does not flash white. A classic script for that reason; the rest are modules.
try {
  const kept = JSON.parse(localStorage.getItem("warmline.preferences") || "{}");
  if (kept.theme === "light" || kept.theme === "dark") document.documentElement.dataset.theme = kept.theme;
} catch {
  // Storage is closed to us or holds something else: the device's own choice stands.
}
