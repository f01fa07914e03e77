// The page of a label set: thresholds that can be moved.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const every = (selector, root = document) => [...root.querySelectorAll(selector)];
  const show = (elements, wanted) => { for (const each of elements) each.hidden = !wanted; };

  // Thresholds: each has a place among its marks.
  const { thresholds, splits } = data;
  const places = {};
  const placeOf = (threshold, value) => {
    const { marks } = thresholds[threshold];
    return marks.reduce((best, mark, place) => Math.abs(mark - value) < Math.abs(marks[best] - value) ? place : best, 0);
  };
  const valueOf = (threshold) => thresholds[threshold].marks[places[threshold]];
  const spoken = (threshold) => `${valueOf(threshold)}${thresholds[threshold].unit}`;
  const isMoved = (threshold) => valueOf(threshold) !== thresholds[threshold].now;

  const keeps = {
    "<": (value, edge) => value < edge, "<=": (value, edge) => value <= edge,
    ">": (value, edge) => value > edge, ">=": (value, edge) => value >= edge,
  };
  // Both are compared in single precision, as the labels are made.
  const belongs = (side, value) => keeps[side.rule](Math.fround(value), Math.fround(valueOf(side.threshold)));
  // The class that no threshold bounds from outside: what is left over.
  const restOf = (split) => split.classes.findIndex((_, place) => !split.sides.some((side) => side.place === place));
  const classOf = (split, value) => (split.sides.find((side) => belongs(side, value)) ?? { place: restOf(split) }).place;
  const countsOf = (split) => {
    const counts = split.classes.map(() => 0);
    for (const side of split.sides) counts[side.place] = side.counts[places[side.threshold]];
    counts[restOf(split)] = split.total - counts.reduce((sum, count) => sum + count, 0);
    return counts;
  };

  const words = { "<": "under", "<=": "up to", ">": "over", ">=": "from" };
  const rangeOf = (split, place) => {
    const side = split.sides.find((each) => each.place === place);
    if (side) return `${words[side.rule]} ${spoken(side.threshold)}`;
    const edges = split.sides.map((each) => each.threshold).sort((one, other) => valueOf(one) - valueOf(other));
    return edges.length > 1 ? edges.map(spoken).join(" to ") : `under ${spoken(edges[0])}`;
  };
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const change = (share) => `${share < -5e-4 ? "−" : share > 5e-4 ? "+" : "±"}${Math.abs(100 * share).toFixed(1)}`;
  const drawZones = (section, split) => {
    const [low, high] = split.axis;
    const edges = [...new Set(split.sides.map((side) => side.threshold))].map(valueOf).sort((one, other) => one - other);
    const ends = [low, ...edges, high].map((edge) => 100 * (edge - low) / (high - low));
    split.along.forEach((place, at) => {
      const zone = section.querySelector(`.zone[data-place="${place}"]`);
      zone.style.left = `${ends[at]}%`;
      zone.style.width = `${ends[at + 1] - ends[at]}%`;
    });
  };
  const dividePool = (section, split) => {
    const groups = split.classes.map((_, place) => section.querySelector(`.group[data-place="${place}"]`));
    const lists = groups.map((group) => group.querySelector("ul"));
    const faces = every(".pool li", section).sort((one, other) => one.dataset.value - other.dataset.value);
    for (const face of faces) lists[classOf(split, Number(face.dataset.value))].append(face);
    groups.forEach((group, place) => {
      group.querySelector(".none").hidden = lists[place].children.length > 0;
      group.querySelector("[data-range]").textContent = rangeOf(split, place);
    });
  };
  const timers = {};
  const draw = (name) => {
    const section = document.querySelector(`[data-split="${name}"]`);
    const split = splits[name];
    const counts = countsOf(split);
    const moved = split.sides.some((side) => isMoved(side.threshold));
    const would = section.querySelector("[data-would]");
    counts.forEach((count, place) => {
      const share = split.total ? count / split.total : 0;
      const now = split.now[place];
      section.querySelector(`[data-share="${place}"]`).textContent = percent(share);
      section.querySelector(`[data-change="${place}"]`).textContent = change(share - now);
      const bar = would.querySelector(`[data-place="${place}"]`);
      bar.style.width = `${100 * share}%`;
      bar.textContent = share > 0.16 ? split.classes[place] : "";
    });
    show(every("[data-moved]", section), moved);
    drawZones(section, split);
    dividePool(section, split);
    clearTimeout(timers[name]);
    timers[name] = setTimeout(() => {
      const said = split.classes.map((each, place) => `${each} ${percent(split.total ? counts[place] / split.total : 0)}`);
      section.querySelector("[data-said]").textContent = moved ? said.join(", ") : "";
    }, 500);
  };

  // The command for what was moved.
  const bar = document.getElementById("bar");
  const command = document.getElementById("command");
  const write = () => {
    const names = data.order;
    const options = names.filter((name) => valueOf(name) !== thresholds[name].bare)
      .map((name) => `${thresholds[name].option} ${valueOf(name)}`);
    command.textContent = [data.command, ...options].join(" ");
    bar.hidden = !names.some(isMoved);
    document.documentElement.style.setProperty("--bar", bar.hidden ? "0rem" : `${bar.offsetHeight + 16}px`);
    document.getElementById("copied").textContent = "";
  };
  const refresh = (threshold) => {
    for (const slider of every(`[data-threshold="${threshold}"]`)) {
      slider.value = places[threshold];
      slider.setAttribute("aria-valuetext", spoken(threshold));
    }
    for (const exact of every(`[data-exact="${threshold}"]`)) exact.value = valueOf(threshold);
    for (const said of every(`[data-outside="${threshold}"]`)) said.textContent = "";
    for (const [name, split] of Object.entries(splits)) {
      if (split.sides.some((side) => side.threshold === threshold)) draw(name);
    }
  };
  const move = (threshold, place) => {
    const { marks, under, over } = thresholds[threshold];
    // A class stays between two thresholds: neither passes the other.
    const last = under ? marks.findLastIndex((mark) => mark < valueOf(under)) : marks.length - 1;
    const first = over ? marks.findIndex((mark) => mark > valueOf(over)) : 0;
    places[threshold] = Math.max(first, Math.min(last, place));
    refresh(threshold);
    write();
  };
  // Why a threshold is not the number that was typed.
  const explain = (threshold, typed) => {
    const { marks, under, over, unit } = thresholds[threshold];
    const [low, high, value] = [marks[0], marks.at(-1), Number(typed)];
    if (typed === "") return "a number is expected";
    if (value < low || value > high) return `it lies between ${low}${unit} and ${high}${unit}`;
    if (under && value >= valueOf(under)) return `it stays under ${spoken(under)}`;
    if (over && value <= valueOf(over)) return `it stays over ${spoken(over)}`;
    return value === valueOf(threshold) ? "" : `the nearest that is counted here is ${spoken(threshold)}`;
  };
  const reset = () => {
    for (const threshold in thresholds) places[threshold] = placeOf(threshold, thresholds[threshold].now);
    for (const threshold in thresholds) refresh(threshold);
    write();
  };

  document.addEventListener("input", ({ target }) => {
    if (target.dataset.threshold) move(target.dataset.threshold, Number(target.value));
  });
  document.addEventListener("change", ({ target }) => {
    const threshold = target.dataset.exact;
    if (!threshold) return;
    const asked = target.value;
    if (asked !== "") places[threshold] = placeOf(threshold, Number(asked));
    move(threshold, places[threshold]);
    for (const said of every(`[data-outside="${threshold}"]`)) said.textContent = explain(threshold, asked);
  });
  document.addEventListener("keydown", (event) => {
    const threshold = event.target.dataset?.threshold;
    const way = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
    if (!threshold || !way) return;
    event.preventDefault();
    move(threshold, places[threshold] + way * (event.shiftKey ? 1 : 5));
  });
  document.getElementById("reset").addEventListener("click", reset);
  document.getElementById("copy").addEventListener("click", () => copyText(command, document.getElementById("copied")));

  // Where the labels lie is known from where the page does: <data set>/report/<fingerprint>/index.html.
  if (/\/report\/[^/]+\/[^/]*$/.test(location.pathname)) {
    const folder = decodeURIComponent(new URL("../../labels/current", location.href).pathname);
    document.getElementById("scan").textContent = `polars.scan_parquet(${JSON.stringify(folder)})`;
  }
  for (const split of Object.values(splits)) split.now = split.counted.map((count) => split.total ? count / split.total : 0);
  show(every(".sliders, [data-script]"), true);
  reset();
})();
