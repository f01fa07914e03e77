(() => {
  "use strict";
  const controls = document.getElementById("controls");
  if (!controls) return;
  const selects = [...controls.querySelectorAll("select")];
  const parts = [...document.querySelectorAll("[data-part]")];
  const differs = (part) => (select) =>
    select.name in part.dataset && part.dataset[select.name] !== select.value;
  const show = () => {
    for (const part of parts) part.hidden = selects.some(differs(part));
  };
  controls.addEventListener("change", show);
  controls.hidden = false;
  show();
})();
