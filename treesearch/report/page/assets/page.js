// The page: theme, plots, refresh. Data stands in #report-data, see treesearch/report/page/frame.py; colours of plots
// are names of the CSS variables of page.css, so that they follow the theme.
(() => {
  "use strict";

  const root = document.documentElement;
  const data = JSON.parse(document.getElementById("report-data").textContent);

  // -- theme: the system's, or what was chosen here ------------------------------------------------------------------

  const STORED = "treesearch-theme";
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const button = document.getElementById("theme");

  // Storage is refused to files in some settings: what is chosen then lasts as long as the page.
  function stored(storage, key, value) {
    try {
      if (value === undefined) return window[storage].getItem(key);
      window[storage].setItem(key, value);
    } catch { /* as above */ }
    return null;
  }

  function setTheme(theme) {
    root.dataset.theme = theme;
    button.textContent = theme === "dark" ? "Light" : "Dark";
    button.setAttribute("aria-label", `Show the page ${theme === "dark" ? "light" : "dark"}`);
  }

  setTheme(stored("localStorage", STORED) ?? (system.matches ? "dark" : "light"));
  button.addEventListener("click", () => {
    setTheme(root.dataset.theme === "dark" ? "light" : "dark");
    stored("localStorage", STORED, root.dataset.theme);
    drawAll();
  });
  system.addEventListener("change", () => {
    if (stored("localStorage", STORED) !== null) return;
    setTheme(system.matches ? "dark" : "light");
    drawAll();
  });

  // -- plots ---------------------------------------------------------------------------------------------------------

  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  // From what stands out least on the surface to what does most, in one hue: also the colour-blind can order it.
  function sequentialScale() {
    return root.dataset.theme === "dark"
      ? [[0, "#1d2125"], [0.25, "#173a52"], [0.5, "#1f6a94"], [0.75, "#56b4e9"], [1, "#d6efff"]]
      : [[0, "#ffffff"], [0.25, "#c9e3f3"], [0.5, "#7db8dc"], [0.75, "#2b7fb3"], [1, "#08395c"]];
  }

  function coloured(value) {
    if (value === "--sequential") return sequentialScale();
    if (typeof value === "string") return value.startsWith("--") ? css(value) || value : value;
    if (Array.isArray(value)) return value.map(coloured);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, coloured(part)]));
  }

  function themed(layout, width) {
    const text = css("--text"), border = css("--border");
    const framed = {
      font: { family: getComputedStyle(document.body).fontFamily, color: text, size: 13 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      autosize: true,
      modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--muted"), activecolor: css("--accent") },
      hoverlabel: { bgcolor: css("--bg"), bordercolor: border, font: { color: text } },
      ...coloured(layout),
    };
    for (const key of Object.keys(framed)) {
      if (/^[xy]axis\d*$/.test(key)) {
        framed[key] = { gridcolor: border, linecolor: border, zerolinecolor: border, automargin: true, ...framed[key] };
      }
    }
    if (!framed.xaxis) framed.xaxis = { gridcolor: border, automargin: true };
    if (!framed.yaxis) framed.yaxis = { gridcolor: border, automargin: true };
    if (width < 560 && framed.legend) { // below the plot: above it stand the buttons
      framed.legend = { ...framed.legend, yref: "container", y: 0, yanchor: "bottom" };
      framed.margin = { ...framed.margin, t: 36 };
      framed.height += 72;
    }
    return framed;
  }

  const shown = new Map(); // key -> number of the variant
  const SETTINGS = {
    responsive: true, displaylogo: false, displayModeBar: "hover", modeBarButtonsToRemove: ["lasso2d", "select2d"],
  };

  function draw(place) {
    const figure = data.figures[place.dataset.figure];
    const variant = figure.variants[shown.get(place) ?? 0];
    place.setAttribute("role", "img");
    place.setAttribute("aria-label", `${figure.title}. ${figure.summary}`);
    return Plotly.react(place, coloured(variant.data), themed(variant.layout, place.clientWidth), SETTINGS);
  }

  function addVariants(place) {
    const { title, variants } = data.figures[place.dataset.figure];
    if (variants.length < 2) return;
    const select = document.createElement("select");
    for (const { name } of variants) select.append(new Option(name));
    select.selectedIndex = shown.get(place) ?? 0;
    select.addEventListener("change", () => {
      shown.set(place, select.selectedIndex);
      draw(place);
    });
    const label = document.createElement("label");
    label.append("Show ", select);
    select.setAttribute("aria-label", `${title}: show`);
    const line = document.createElement("div");
    line.className = "variant";
    line.append(label);
    place.before(line);
  }

  const places = Array.from(document.querySelectorAll("[data-figure]"));

  // One after the other, so that the page answers meanwhile; `root.dataset.drawn` says when all are there.
  let drawing = 0;
  async function drawAll() {
    const turn = ++drawing;
    delete root.dataset.drawn;
    for (const place of places) {
      if (turn !== drawing) return;
      await draw(place);
      await new Promise((resolve) => setTimeout(resolve));
    }
    root.dataset.drawn = "true";
  }

  // -- the tree, and the refresh of the page of a run that goes on -----------------------------------------------------

  const CHOSEN = "treesearch-chosen"; // what is chosen on the page, over a refresh
  const place = document.getElementById("tree-viewer");
  const viewer = place && mountTreeViewer(place, data.tree);
  const foldable = () => Array.from(document.querySelectorAll("figure details, #settings details, #glossary details"));

  function keep() {
    const variants = places.map((one) => [one.dataset.figure, shown.get(one) ?? 0]);
    const open = foldable().map((one) => [foldName(one), one.open]);
    const chosen = { tree: viewer ? viewer.state() : null, variants, open };
    stored("sessionStorage", CHOSEN + location.pathname, JSON.stringify(chosen));
  }

  function foldName(details) {
    return `${details.closest("[id]").id}: ${details.querySelector("summary").textContent}`;
  }

  function restore() {
    const chosen = JSON.parse(stored("sessionStorage", CHOSEN + location.pathname) ?? "null");
    if (chosen === null) return;
    if (viewer && chosen.tree) viewer.restore(chosen.tree);
    const variants = new Map(chosen.variants), open = new Map(chosen.open);
    for (const one of places) {
      const number = variants.get(one.dataset.figure) ?? 0;
      if (number < data.figures[one.dataset.figure].variants.length) shown.set(one, number);
    }
    for (const one of foldable()) one.open = open.get(foldName(one)) ?? one.open;
  }

  restore();

  function refreshLater() {
    const live = document.getElementById("live");
    setTimeout(() => {
      const busy = document.activeElement && document.activeElement.closest("#tree, select");
      if (!live.checked || busy) {
        refreshLater();
        return;
      }
      keep();
      location.reload();
    }, 1000 * data.refresh);
  }

  places.forEach(addVariants);
  // What can be read is painted first; and a slow machine gets to see the page before it is loaded again.
  requestAnimationFrame(() => setTimeout(async () => {
    await drawAll();
    if (data.refresh !== null) refreshLater();
  }));
  window.addEventListener("beforeprint", () => places.forEach(draw));
})();
