// SPDX-License-Identifier: GPL-3.0-or-later
// Copyright: The ansible_mitogen_svc authors
//
// The program of the timeline page: draws the bars with ECharts and fills the tables. Runs in a browser, without network.
// `window.timeline` lets a test (or a curious reader, in the console) see and do what the page does.
"use strict";

(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const COLOURS = ["#c9c9c9", "#e69f00", "#0072b2", "#009e73", "#cc79a7"];
  const SEGMENT = "segment", ROW = 22, AROUND = 130, LONGEST_TABLE = 15;
  const [HOST, TASK, WORKER, STATUS, ACTION, BEGIN, END, PARTS] = [0, 1, 2, 3, 4, 5, 6, 7];
  const element = (id) => document.getElementById(id);
  const seconds = (value) => value >= 100 ? value.toFixed(0) + " s" : value >= 1 ? value.toFixed(2) + " s"
    : (value * 1000).toFixed(1) + " ms";
  let chart, shown = [], coarse = false;

  const matches = (name, wanted) => name.toLowerCase().includes(wanted.trim().toLowerCase());

  // With more parts than this in view each task is one rectangle, coloured by what took longest; zooming in shows all.
  const PARTS_DRAWN = 6000;
  const inView = () => {
    const zoom = chart.getOption().dataZoom[0], all = data.end / 100;
    return [zoom.start * all, zoom.end * all];
  };
  const isCoarse = () => {
    const [from, to] = inView();
    let parts = 0;
    for (const bar of shown) {
      if (data.bars[bar][END] >= from && data.bars[bar][BEGIN] <= to) parts += data.bars[bar][PARTS].length;
    }
    return parts > PARTS_DRAWN;
  };
  const longest = (bar) => {
    const sums = data.kinds.map(() => 0);
    bar[PARTS].forEach((part) => { sums[part[0]] += part[2] - part[1]; });
    return sums.indexOf(Math.max(...sums));
  };

  // One series per kind, so that the legend can hide it. An item is [begin, host, end, index of its bar].
  const series = () => {
    const items = data.kinds.map(() => []);
    shown.forEach((number) => {
      const bar = data.bars[number];
      if (coarse) items[longest(bar)].push([bar[BEGIN], bar[HOST], bar[END], number]);
      else bar[PARTS].forEach((part) => items[part[0]].push([part[1], bar[HOST], part[2], number]));
    });
    return data.kinds.map((name, kind) => ({
      name, type: "custom", itemStyle: { color: COLOURS[kind] }, encode: { x: [0, 2], y: 1 }, progressive: 0,
      animation: false, emphasis: { disabled: true }, renderItem: draw, data: items[kind],
    }));
  };

  const draw = (parameters, api) => {
    const from = api.coord([api.value(0), api.value(1)]), to = api.coord([api.value(2), api.value(1)]);
    const area = parameters.coordSys, height = Math.min(16, api.size([0, 1])[1] * 0.72);
    const left = Math.max(from[0], area.x), right = Math.min(to[0], area.x + area.width);
    if (right < area.x || left > area.x + area.width) return undefined;
    // A hair at least: what took no time was there all the same.
    const shape = { x: left, y: from[1] - height / 2, width: Math.max(right - left, 0.6), height };
    return { type: "rect", name: SEGMENT, shape, style: api.style() };
  };

  const describe = (item) => {
    const bar = data.bars[item.value[3]], box = document.createElement("div");
    const lines = [data.tasks[bar[TASK]], `${data.hosts[bar[HOST]]}: ${bar[STATUS]} in ${seconds(bar[END] - bar[BEGIN])}`,
      `${bar[ACTION]}, worker: ${data.workers[bar[WORKER]]}`,
      ...bar[PARTS].map((part) => `${data.kinds[part[0]]} ${seconds(part[2] - part[1])}`)];
    lines.forEach((line, number) => {
      const row = document.createElement("div");
      row.textContent = line;
      if (number === 0) row.style.fontWeight = "bold";
      box.append(row);
    });
    return box;
  };

  const start = () => {
    element("chart").style.height = Math.min(900, AROUND + ROW * data.hosts.length) + "px";
    chart = echarts.init(element("chart"));
    chart.setOption({
      animation: false, legend: { top: 4 }, tooltip: { confine: true, formatter: describe },
      grid: { left: 10, right: 36, top: 40, bottom: 64, containLabel: true },
      xAxis: { type: "value", min: 0, max: data.end, name: "s", axisLabel: { hideOverlap: true } },
      yAxis: { type: "category", data: data.hosts, inverse: true },
      dataZoom: [
        { id: "time", type: "slider", xAxisIndex: 0, bottom: 12, filterMode: "weakFilter", labelFormatter: seconds },
        { id: "wheel", type: "inside", xAxisIndex: 0, filterMode: "weakFilter" },
        { id: "hosts", type: "slider", yAxisIndex: 0, right: 4, width: 16, filterMode: "weakFilter", showDetail: false },
      ],
    });
    chart.on("datazoom", () => { if (isCoarse() !== coarse) update(); });
    window.addEventListener("resize", () => chart.resize());
  };

  const filter = () => {
    const task = element("task").value, host = element("host").value, status = element("status").value;
    const tasks = data.tasks.map((name) => matches(name, task)), hosts = data.hosts.map((name) => matches(name, host));
    shown = data.bars.map((_bar, number) => number).filter((number) => {
      const bar = data.bars[number];
      return tasks[bar[TASK]] && hosts[bar[HOST]] && (!status || bar[STATUS] === status);
    });
    update();
    tables();
  };

  const update = () => {
    coarse = isCoarse();
    chart.setOption({ series: series() });
    element("shown").textContent = `${shown.length} of ${data.bars.length} task runs shown`
      + (coarse ? ", each as what took longest in it: zoom in for all its parts" : "");
  };

  const table = (title, heads, rows) => {
    const part = document.createElement("section"), head = document.createElement("h2");
    head.textContent = title;
    const grid = document.createElement("table");
    [heads, ...rows].forEach((cells, number) => {
      const row = grid.insertRow();
      cells.forEach((cell, column) => {
        const place = document.createElement(number ? "td" : "th");
        place.textContent = cell;
        if (column) place.className = "number";
        row.append(place);
      });
    });
    part.append(head, grid);
    return part;
  };

  const slowest = (names, field) => {
    const sums = names.map((name) => ({ name, runs: 0, total: 0, longest: 0 }));
    shown.forEach((number) => {
      const bar = data.bars[number], sum = sums[bar[field]], took = bar[END] - bar[BEGIN];
      sum.runs += 1; sum.total += took; sum.longest = Math.max(sum.longest, took);
    });
    return sums.filter((sum) => sum.runs).sort((a, b) => b.total - a.total).slice(0, LONGEST_TABLE)
      .map((sum) => [sum.name, sum.runs, seconds(sum.total), seconds(sum.longest)]);
  };

  const figures = (group) => Object.entries(data.statistics[group] || {}).flatMap(([name, value]) =>
    typeof value === "object" ? Object.entries(value).map(([inner, number]) => [`${name} (${inner})`, number])
      : [[name, value]]);

  const tables = () => {
    const heads = ["", "runs", "sum", "longest"], place = element("tables");
    place.replaceChildren(
      table("Slowest tasks", heads, slowest(data.tasks, TASK)),
      table("Slowest hosts", heads, slowest(data.hosts, HOST)),
      table("Workers, and why", heads, slowest(data.workers, WORKER)),
      table("Where the time went", ["", "seconds of all tasks"],
        data.kinds.map((kind) => [kind, data.seconds[kind].toFixed(3)])),
      ...[["module_runs", "Module runs: zygote, or a fallback and its reason"], ["connections", "Connections"],
        ["module_cache", "Module cache"], ["transfer", "Files"]].filter(([group]) => figures(group).length)
        .map(([group, title]) => table(title, ["", ""], figures(group))));
  };

  const summary = () => {
    element("title").textContent = `Timeline of ${data.playbook}`;
    element("summary").textContent = `${new Date(data.began * 1000).toLocaleString()}: ${data.bars.length} task runs `
      + `on ${data.hosts.length} hosts in ${seconds(data.end)}. Wheel or sliders zoom, the legend hides a kind of time.`;
    [...new Set(data.bars.map((bar) => bar[STATUS]))].sort().forEach((status) => {
      element("status").add(new Option(status, status));
    });
  };

  data.end = data.bars.reduce((latest, bar) => Math.max(latest, bar[END]), 0);
  summary();
  start();
  filter();
  for (const id of ["task", "host"]) element(id).addEventListener("input", filter);
  element("status").addEventListener("change", filter);
  window.timeline = {
    chart,
    bars: () => shown.length,
    // Rectangles that are really drawn: what the chart hides or has zoomed away is not in the list.
    drawn: () => chart.getZr().storage.getDisplayList(true).filter((shape) => shape.name === SEGMENT).length,
    parts: () => shown.reduce((sum, bar) => sum + data.bars[bar][PARTS].length, 0),
  };
})();
