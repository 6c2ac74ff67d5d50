"use strict";
(() => {
  const nonce = document.currentScript.nonce;
  const root = document.documentElement;
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const accents = ["--accent", "--accent-2", "--accent-3", "--accent-4", "--accent-5", "--accent-6"];

  // --- Tables: sorting and filtering ---------------------------------------------------------

  const keyOf = (cell) => (cell.dataset.value === "" ? cell.textContent : Number(cell.dataset.value));

  const compared = (one, other) => {
    if (one === "" || other === "") return (one === "") - (other === ""); // empty cells come last
    const numbers = typeof one === "number" && typeof other === "number";
    return numbers ? one - other : String(one).localeCompare(String(other), undefined, { numeric: true });
  };

  const sort = (heading) => {
    const table = heading.closest("table");
    const column = [...heading.parentNode.children].indexOf(heading);
    const isNumber = heading.classList.contains("number");
    const before = heading.getAttribute("aria-sort");
    const descending = before ? before === "ascending" : isNumber;
    const rows = [...table.tBodies[0].rows].map((row) => [keyOf(row.cells[column]), row]);
    rows.sort(([one], [other]) => {
      const order = compared(one, other);
      return descending && one !== "" && other !== "" ? -order : order;
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
    for (const other of table.tHead.querySelectorAll("th")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  };

  const filter = (input) => {
    const rows = [...document.getElementById(input.dataset.filter).tBodies[0].rows];
    const wanted = input.value.toLocaleLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLocaleLowerCase().includes(wanted);
    const shown = rows.filter((row) => !row.hidden).length;
    const count = document.querySelector(`[data-count="${input.dataset.filter}"]`);
    count.textContent = wanted ? `${shown} of ${rows.length} rows` : "";
  };

  for (const button of document.querySelectorAll("th button")) {
    button.addEventListener("click", () => sort(button.parentNode));
  }
  for (const input of document.querySelectorAll("[data-filter]")) {
    input.addEventListener("input", () => filter(input));
  }

  // --- Refreshing ----------------------------------------------------------------------------

  const refresh = document.getElementById("refresh");
  const startRefreshing = () => { // once the figures are drawn: a slow device must get to see them
    const again = () => setTimeout(() => location.reload(), 1000 * refresh.dataset.seconds);
    let timer = again();
    refresh.addEventListener("click", () => {
      const stopped = timer === null;
      if (stopped) timer = again();
      else { clearTimeout(timer); timer = null; }
      refresh.setAttribute("aria-pressed", String(stopped));
      refresh.textContent = stopped ? `Refreshing every ${refresh.dataset.seconds} s` : "Refreshing stopped";
    });
  };

  // --- Figures -------------------------------------------------------------------------------

  const color = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  const themed = (value) => {
    if (typeof value === "string") {
      const found = /^var\((--[a-z0-9-]+)\)$/.exec(value);
      return found ? color(found[1]) : value;
    }
    if (Array.isArray(value)) return value.map(themed);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, themed(inner)]));
    }
    return value;
  };

  const axis = (given, narrow) => ({
    gridcolor: color("--line"), zerolinecolor: color("--line"), linecolor: color("--muted"),
    automargin: true, fixedrange: true, ...given,
    nticks: narrow && (given || {}).type !== "category" ? 6 : 0,
  });

  const layout = (figure, width) => {
    const narrow = width < 520;
    const made = themed(figure.layout);
    made.xaxis = axis(made.xaxis, narrow);
    made.yaxis = axis(made.yaxis, narrow);
    if (narrow && made.meta && made.meta.many) {
      made.xaxis.showticklabels = made.yaxis.showticklabels = false;
    }
    return {
      height: figure.height, width, margin: { l: 48, r: 16, t: 12, b: 40 },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "inherit", size: 13, color: color("--text") },
      colorway: accents.map(color), dragmode: false,
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
      hoverlabel: { align: "left", bgcolor: color("--card"), font: { color: color("--text") } },
      ...made,
    };
  };

  const draw = async (figure, width) => {
    const plot = document.getElementById(`figure-${figure.key}`);
    const options = { displayModeBar: false, doubleClick: false, showTips: false };
    const room = width || Math.max(plot.parentNode.clientWidth, figure.minWidth);
    await Plotly.react(plot, themed(figure.data), layout(figure, room), options);
    plot.dataset.drawn = "true";
  };

  const drawAll = async (width) => {
    for (const figure of figures) await draw(figure, width);
    root.dataset.drawn = String(figures.length);
  };

  const unpack = async () => {
    const packed = document.getElementById("plotly");
    const bytes = Uint8Array.from(atob(packed.textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.nonce = nonce;
    script.textContent = await new Response(stream).text();
    packed.remove();
    document.head.append(script);
  };

  const start = async () => {
    if (figures.length) await unpack();
    await drawAll();
    let waiting = 0;
    let width = root.clientWidth;
    window.addEventListener("resize", () => {
      if (root.clientWidth === width) return;
      width = root.clientWidth;
      clearTimeout(waiting);
      waiting = setTimeout(() => drawAll(), 150);
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll());
    window.addEventListener("beforeprint", () => { root.classList.add("printing"); drawAll(660); });
    window.addEventListener("afterprint", () => { root.classList.remove("printing"); drawAll(); });
  };

  start().catch((error) => {
    const problem = document.getElementById("problem");
    problem.textContent = `The figures cannot be drawn here (${error.message}); the tables are complete.`;
    problem.hidden = false;
    console.error(error);
  }).finally(() => { if (refresh) startRefreshing(); });
})();
