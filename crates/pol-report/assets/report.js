"use strict";
// Figures by uPlot, with numbers, keys and exports beside them. Text from the data only ever becomes text.
(() => {
  const figures = JSON.parse(document.getElementById("figure-data").textContent);
  const root = document.documentElement;
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const SERIES = 8;
  const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3]];

  // uPlot wants one list of x for all series. Only points that the axes can show are drawn.
  function aligned(figure) {
    const shown = ([x, y]) => (!figure.x.log || x > 0) && (!figure.y.log || y > 0);
    const points = figure.series.map((s) => s.points.filter(shown));
    const xs = [...new Set(points.flat().map(([x]) => x))].sort((a, b) => a - b);
    const place = new Map(xs.map((x, i) => [x, i]));
    return [xs, ...points.map((list) => {
      const ys = new Array(xs.length).fill(null);
      for (const [x, y] of list) ys[place.get(x)] = y;
      return ys;
    })];
  }

  function number(value) {
    if (value == null) return "–";
    const size = Math.abs(value);
    if (size === 0) return "0";
    return size >= 0.001 && size < 1e5 ? String(+value.toPrecision(4)) : value.toExponential(1);
  }

  // Powers of ten within a logarithmic range; all multiples where there are few powers.
  function logTicks(min, max) {
    const low = Math.floor(Math.log10(min)), high = Math.ceil(Math.log10(max));
    const step = Math.max(1, Math.ceil((high - low) / 8));
    const factors = high - low <= 2 ? [1, 2, 5] : [1];
    const ticks = [];
    for (let power = low; power <= high; power += step)
      for (const factor of factors) {
        const tick = factor * 10 ** power;
        if (tick >= min * 0.999 && tick <= max * 1.001) ticks.push(tick);
      }
    return ticks;
  }

  function range(values, log) {
    let min = Infinity, max = -Infinity;
    for (const value of values) if (value != null) { min = Math.min(min, value); max = Math.max(max, value); }
    if (min > max) return log ? [0.1, 1] : [0, 1];
    if (log) {
      const wide = min === max ? 3 : Math.max(1.15, (max / min) ** 0.04);
      return [min / wide, max * wide];
    }
    const room = (max - min || Math.abs(max) || 1) * 0.05;
    return [min >= 0 && min - room < 0 ? 0 : min - room, max + room];
  }

  function style(figure, index) {
    const dashed = figure.series[index].style === "dashed";
    return {
      stroke: colour(`--s${index % SERIES}`),
      dash: dashed ? [5, 4] : DASHES[Math.floor(index / SERIES) % DASHES.length],
      points: figure.series[index].style === "line",
    };
  }

  function plot(element, figure) {
    const chart = element.querySelector(".chart");
    const data = aligned(figure);
    const axis = (of) => ({
      label: of.label, stroke: colour("--soft"), labelSize: 22, labelFont: "13px system-ui", font: "12px system-ui",
      grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 },
      ...(of.log ? { splits: (u, i, min, max) => logTicks(min, max), filter: (u, splits) => splits } : {}),
      values: (u, splits) => splits.map(number),
    });
    const size = () => ({ width: Math.max(260, chart.clientWidth), height: chart.clientWidth < 560 ? 260 : 340 });
    const u = new uPlot({
      ...size(),
      scales: {
        x: { time: false, distr: figure.x.log ? 3 : 1, range: range(data[0], figure.x.log) },
        y: { distr: figure.y.log ? 3 : 1, range: range(data.slice(1).flat(), figure.y.log) },
      },
      axes: [axis(figure.x), { ...axis(figure.y), size: 64 }],
      series: [
        { label: figure.x.label, value: (u, v) => number(v) },
        ...figure.series.map((series, index) => {
          const { stroke, dash, points } = style(figure, index);
          return { label: series.label, stroke, dash, width: 2, spanGaps: true, points: { show: points, size: 6 }, value: (u, v) => number(v) };
        }),
      ],
      cursor: { drag: { x: true, y: false } },
    }, data, chart);
    const observer = new ResizeObserver(() => u.setSize(size()));
    observer.observe(chart);
    let at = -1;
    chart.onkeydown = (event) => {
      const last = data[0].length - 1;
      const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: last }[event.key];
      if (next === undefined || last < 0) return;
      event.preventDefault();
      at = Math.min(last, Math.max(0, next));
      u.setCursor({ left: u.valToPos(data[0][at], "x"), top: u.bbox.height / devicePixelRatio / 2 });
    };
    return { close() { observer.disconnect(); u.destroy(); } };
  }

  function numbers(element, figure) {
    const table = document.createElement("table");
    const line = (cells, tag) => {
      const row = table.insertRow();
      cells.forEach((cell, i) => {
        const made = document.createElement(tag);
        made.textContent = cell;
        if (i > 0) made.className = "number";
        row.append(made);
      });
    };
    line(["series", figure.x.label, figure.y.label], "th");
    for (const series of figure.series)
      for (const [x, y] of series.points) line([series.label, number(x), number(y)], "td");
    element.querySelector("details .scroll").append(table);
  }

  // The figure as a drawing for papers: always on white.
  function svg(figure) {
    const W = 720, L = 78, R = 16, T = 34, H = 340, rows = Math.ceil(figure.series.length / 2);
    const total = T + H + 58 + rows * 18;
    const text = (s) => String(s).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c])
      .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "\ufffd");
    const data = aligned(figure);
    const scale = (values, log, from, to) => {
      const [min, max] = range(values, log);
      const f = log ? Math.log10 : (v) => v;
      const at = (v) => from + (to - from) * (f(v) - f(min)) / (f(max) - f(min));
      let ticks;
      if (log) ticks = logTicks(min, max);
      else {
        const raw = (max - min) / 6, power = 10 ** Math.floor(Math.log10(raw));
        const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
        ticks = [];
        for (let v = Math.ceil(min / step) * step; v <= max; v += step) ticks.push(+v.toPrecision(12));
      }
      return { at, ticks };
    };
    const x = scale(data[0], figure.x.log, L, W - R), y = scale(data.slice(1).flat(), figure.y.log, T + H, T);
    const palette = ["#0072b2", "#d55e00", "#009e73", "#a0307c", "#8a6d00", "#3d8bd4", "#6b4fbb", "#555f6b"];
    const out = [`<svg xmlns="http://www.w3.org/2000/svg" width="${W}" height="${total}" viewBox="0 0 ${W} ${total}" font-family="sans-serif" font-size="12">`,
      `<rect width="${W}" height="${total}" fill="#fff"/>`, `<text x="${L}" y="20" font-size="14" font-weight="600">${text(figure.title)}</text>`];
    for (const tick of x.ticks) out.push(`<path d="M${x.at(tick)} ${T}V${T + H}" stroke="#ddd"/><text x="${x.at(tick)}" y="${T + H + 16}" text-anchor="middle">${number(tick)}</text>`);
    for (const tick of y.ticks) out.push(`<path d="M${L} ${y.at(tick)}H${W - R}" stroke="#ddd"/><text x="${L - 6}" y="${y.at(tick) + 4}" text-anchor="end">${number(tick)}</text>`);
    out.push(`<rect x="${L}" y="${T}" width="${W - L - R}" height="${H}" fill="none" stroke="#888"/>`,
      `<text x="${(L + W - R) / 2}" y="${T + H + 36}" text-anchor="middle">${text(figure.x.label)}</text>`,
      `<text transform="translate(16 ${T + H / 2}) rotate(-90)" text-anchor="middle">${text(figure.y.label)}</text>`);
    figure.series.forEach((series, i) => {
      const stroke = palette[i % palette.length], dash = style(figure, i).dash.join(" ");
      const points = data[0].map((v, n) => [v, data[i + 1][n]]).filter(([, v]) => v != null).map(([a, b]) => [x.at(a).toFixed(2), y.at(b).toFixed(2)]);
      out.push(`<polyline points="${points.map((p) => p.join(",")).join(" ")}" fill="none" stroke="${stroke}" stroke-width="1.8" stroke-dasharray="${dash}"/>`);
      if (series.style === "line") for (const [a, b] of points) out.push(`<circle cx="${a}" cy="${b}" r="2.6" fill="${stroke}"/>`);
      const left = L + (i % 2) * (W - L - R) / 2, top = T + H + 56 + Math.floor(i / 2) * 18;
      out.push(`<path d="M${left} ${top - 4}h22" stroke="${stroke}" stroke-width="2" stroke-dasharray="${dash}"/><text x="${left + 28}" y="${top}">${text(series.label)}</text>`);
    });
    return { text: out.join("") + "</svg>", width: W, height: total };
  }

  function save(blob, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  function exported(figure, kind) {
    if (kind === "csv") {
      const cell = (s) => `"${String(s).replace(/"/g, '""')}"`;
      const rows = figure.series.flatMap((s) => s.points.map(([x, y]) => [cell(s.label), x, y].join(",")));
      const head = ["series", figure.x.label, figure.y.label].map(cell).join(",");
      return save(new Blob([[head, ...rows].join("\n") + "\n"], { type: "text/csv" }), `${figure.id}.csv`);
    }
    const drawing = svg(figure);
    const blob = new Blob([drawing.text], { type: "image/svg+xml" });
    if (kind === "svg") return save(blob, `${figure.id}.svg`);
    const image = new Image();
    image.onload = () => {
      const canvas = document.createElement("canvas");
      canvas.width = 2 * drawing.width;
      canvas.height = 2 * drawing.height;
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((png) => save(png, `${figure.id}.png`), "image/png");
      URL.revokeObjectURL(image.src);
    };
    image.src = URL.createObjectURL(blob);
  }

  let plots = [];
  function draw() {
    plots.forEach((p) => p.close());
    plots = [...document.querySelectorAll("[data-figure]")].flatMap((element, i) => figures[i] ? [plot(element, figures[i])] : []);
  }

  document.querySelectorAll("[data-figure]").forEach((element, i) => {
    numbers(element, figures[i]);
    element.querySelectorAll("[data-export]").forEach((button) => {
      button.onclick = () => exported(figures[i], button.dataset.export);
    });
  });
  const dark = matchMedia("(prefers-color-scheme: dark)");
  document.getElementById("theme").onclick = () => {
    const now = root.dataset.theme || (dark.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    draw();
  };
  dark.addEventListener("change", draw);
  // Paper is white.
  let theme;
  addEventListener("beforeprint", () => {
    theme = root.dataset.theme;
    root.dataset.theme = "light";
    draw();
  });
  addEventListener("afterprint", () => {
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
    draw();
  });
  draw();
  root.dataset.ready = "yes";
})();
