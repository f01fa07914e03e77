// Which parts of the page are shown, as the selects above them say.
(() => {
  "use strict";
  const controls = document.getElementById("controls");
  if (!controls) return;
  const selects = [...controls.querySelectorAll("select")];
  const parts = [...document.querySelectorAll("[data-part]")];
  const differs = (part) => (select) =>
    select.value && select.name in part.dataset && part.dataset[select.name] !== select.value;
  const filter = () => {
    for (const part of parts) part.hidden = selects.some(differs(part));
  };
  controls.addEventListener("change", ({ target }) => {
    filter();
    if (target.value) for (const rows of document.querySelectorAll("[data-unfold]")) rows.open = true;
  });
  const reveal = ({ hash }) => {
    const target = hash && document.querySelector(hash);
    if (!target?.hidden) return;
    controls.reset();
    filter();
    target.scrollIntoView();
  };
  addEventListener("hashchange", () => reveal(location));
  document.addEventListener("click", ({ target }) => reveal(target.closest("a[href^='#']") ?? {}));
  controls.hidden = false;
  filter();
})();
