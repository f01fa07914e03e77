// What is known of a face, in a card: under the pointer, by keyboard, by touch; a click keeps it open, with what can be
// copied of it. Arrow keys go from face to face.
(() => {
  "use strict";
  const grids = [...document.querySelectorAll("[data-grid]")];
  if (!grids.length) return;
  const LONG = 24; // Letters from which a fact takes a line of its own.
  const facts = new WeakMap();
  for (const face of document.querySelectorAll(".face")) {
    facts.set(face, face.title);
    face.removeAttribute("title");
  }
  const facesOf = (grid) => [...grid.querySelectorAll(".face")];
  for (const grid of grids) facesOf(grid).forEach((face, place) => { face.tabIndex = place ? -1 : 0; });

  const card = document.createElement("div");
  card.id = "card";
  card.className = "card";
  card.setAttribute("role", "tooltip");
  card.hidden = true;
  document.body.append(card);
  let shown = null;
  let pinned = false;
  const explain = JSON.parse(document.getElementById("data")?.textContent ?? "{}").explain;

  const hide = () => {
    shown?.removeAttribute("aria-describedby");
    shown = null;
    pinned = false;
    card.hidden = true;
  };
  const pin = (face) => {
    show(face);
    if (pinned) return;
    pinned = true;
    const known = new Map(facts.get(face).split("\n").map((line) => line.split("\t")));
    const said = Object.assign(document.createElement("span"), { role: "status" });
    const offers = document.createElement("div");
    for (const [name, text] of [["file", known.get("file")], ["explain command", explain?.replace("KEY", known.get("image"))]]) {
      if (!text) continue;
      const code = Object.assign(document.createElement("code"), { textContent: text });
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: `Copy ${name}` });
      button.addEventListener("click", () => copyText(code, said));
      const offer = document.createElement("p");
      offer.append(code, button);
      offers.append(offer);
    }
    if (offers.children.length) card.append(offers, said);
    place(face);
  };
  const fill = (face) => {
    const list = document.createElement("dl");
    for (const line of facts.get(face).split("\n")) {
      const [name, value] = line.split("\t");
      const entry = document.createElement("div");
      entry.classList.toggle("long", name.length + value.length > LONG);
      entry.append(Object.assign(document.createElement("dt"), { textContent: name }));
      entry.append(Object.assign(document.createElement("dd"), { textContent: value }));
      list.append(entry);
    }
    const image = face.querySelector("img");
    card.replaceChildren(...(image ? [Object.assign(new Image(), { src: image.src, alt: "" })] : []), list);
  };
  const place = (face) => {
    card.style.left = card.style.top = card.style.bottom = "";
    const at = face.getBoundingClientRect();
    if (matchMedia("(max-width: 34rem)").matches) {
      // The card lies across the window, at the end where the face is not.
      if (at.top > innerHeight / 2) Object.assign(card.style, { top: "8px", bottom: "auto" });
      return;
    }
    const room = document.documentElement.clientWidth - 8;
    const right = at.right + 8;
    card.style.left = `${Math.max(8, right + card.offsetWidth <= room ? right : at.left - 8 - card.offsetWidth)}px`;
    card.style.top = `${Math.max(8, Math.min(at.top, innerHeight - 8 - card.offsetHeight))}px`;
  };
  const show = (face) => {
    if (face === shown) return;
    hide();
    shown = face;
    fill(face);
    card.hidden = false;
    face.setAttribute("aria-describedby", "card");
    place(face);
  };

  // The way from a face to its card is free: the pointer may cross what lies between.
  let leaving = 0;
  let last = "";
  document.addEventListener("pointermove", (event) => {
    const at = `${event.clientX} ${event.clientY}`;
    if (at === last) return; // The page moved below the pointer, not the pointer.
    last = at;
    clearTimeout(leaving);
    const face = event.target.closest?.(".face");
    if (pinned) return;
    if (face) show(face);
    else if (shown && !card.contains(event.target) && shown !== document.activeElement) leaving = setTimeout(hide, 150);
  });
  document.addEventListener("focusin", (event) => {
    const face = event.target.closest(".face");
    const grid = face?.closest("[data-grid]");
    if (!grid) return card.contains(event.target) ? undefined : hide();
    for (const each of facesOf(grid)) each.tabIndex = each === face ? 0 : -1;
    show(face);
  });
  document.addEventListener("click", (event) => {
    const face = event.target.closest(".face");
    if (face) pin(face);
    else if (!card.contains(event.target)) hide();
  });
  addEventListener("scroll", () => {
    if (!shown || pinned) return;
    const at = shown.getBoundingClientRect();
    if (shown === document.activeElement && at.bottom > 0 && at.top < innerHeight) place(shown);
    else hide();
  }, { passive: true });

  // The face above or below: in the nearest row, the one whose left side is nearest.
  const beside = (faces, face, way) => {
    const from = face.getBoundingClientRect();
    const places = faces.map((each) => ({ each, at: each.getBoundingClientRect() }))
      .filter(({ at }) => way * (at.top - from.top) > 4);
    const rank = ({ at }) => Math.abs(at.top - from.top) * 1e4 + Math.abs(at.left - from.left);
    return places.sort((one, other) => rank(one) - rank(other))[0]?.each ?? face;
  };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    const face = event.target.closest?.(".face");
    const grid = face?.closest("[data-grid]");
    if (!grid || event.altKey || event.ctrlKey || event.metaKey) return;
    const faces = facesOf(grid);
    const now = faces.indexOf(face);
    const steps = {
      ArrowLeft: () => faces[Math.max(0, now - 1)],
      ArrowRight: () => faces[Math.min(faces.length - 1, now + 1)],
      ArrowUp: () => beside(faces, face, -1),
      ArrowDown: () => beside(faces, face, 1),
      Home: () => faces[0],
      End: () => faces[faces.length - 1],
    };
    if (!(event.key in steps)) return;
    event.preventDefault();
    steps[event.key]().focus();
  });
})();
