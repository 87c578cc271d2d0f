// Fills the page from /events. Text goes in as text (textContent), never as markup: names and reasons are written by people.
"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const HOUR = 3600e3, DAY = 24 * HOUR;
  const LISTED = 40; // happenings; all that came are marked in the chart
  const SIGNS = { alarm: "▲", cleared: "△", fit: "●", champion: "◆", back: "◀" };
  const LANES = { alarm: 0, cleared: 0, fit: 1, champion: 2, back: 2 };
  const LOUD = { alarm: "▲", fit: "●", champion: "◆", "rolled back": "◀", rejected: "✕", shadow: "◌", canary: "◔", retired: "–", registered: "+" };

  const byId = (id) => document.getElementById(id);
  const whole = (n) => n.toLocaleString("en-US");
  const part = (root, name) => root.querySelector(`[data-part="${name}"]`);
  const some = (v) => v !== null && v !== undefined;
  const fixed = (v, digits) => (some(v) ? v.toFixed(digits) : "–");

  function make(tag, attributes = {}, ...children) {
    return fill(document.createElement(tag), attributes, children);
  }
  function draw(tag, attributes = {}, ...children) {
    return fill(document.createElementNS(SVG, tag), attributes, children);
  }
  function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }
  function put(node, text) {
    if (node && node.textContent !== text) node.textContent = text;
  }

  // ---- time: stream time in UTC, never the viewer's zone

  function moment(text) {
    const iso = new Date(text).toISOString();
    return iso.slice(11, 16) === "00:00" ? iso.slice(0, 10) : `${iso.slice(0, 10)} ${iso.slice(11, 16)}`;
  }
  function ticks(from, to, most) {
    const steps = [HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY, 14 * DAY, 28 * DAY, 56 * DAY, 112 * DAY, 365 * DAY];
    const step = steps.find((s) => (to - from) / s <= most) || 730 * DAY;
    const found = [];
    for (let at = Math.ceil(from / step) * step; at <= to; at += step) found.push(at);
    return found.map((at) => ({ at, text: step < DAY ? moment(at).slice(5) : moment(at).slice(to - from > 300 * DAY ? 0 : 5, 10) }));
  }

  // ---- flow

  function speed(rate) {
    if (!some(rate)) return "rate not known yet";
    if (rate === 0) return "0 a second";
    return `${rate < 10 ? rate.toFixed(1) : whole(Math.round(rate))} a second`;
  }
  function showFlow(flow) {
    for (const place of flow.places) {
      put(document.querySelector(`[data-count="${place.name}"]`), whole(place.count));
      put(document.querySelector(`[data-rate="${place.name}"]`), speed(place.rate));
      const pipe = document.querySelector(`[data-pipe="${place.name}"]`);
      if (!pipe) continue;
      pipe.dataset.strength = String(Math.min(4, place.rate ? 1 + Math.floor(Math.log10(Math.max(place.rate, 1))) : 0));
      put(document.querySelector(`[data-waiting="${place.name}"]`), whole(place.waiting || 0));
    }
    put(byId("scored"), whole(flow.scored));
    byId("flow-empty").hidden = flow.places[0].count > 0;
    const dead = byId("dead");
    const letters = Object.entries(flow.dead), total = letters.reduce((sum, [, count]) => sum + count, 0);
    dead.dataset.some = total ? "1" : "0";
    put(byId("dead-sign"), total ? "▲" : "✓");
    put(byId("dead-count"), whole(total));
    put(byId("dead-noun"), total === 1 ? "dead letter" : "dead letters");
    const named = letters.slice(0, 5).map(([topic, count]) => `${whole(count)} in ${topic}`).join(", ");
    put(byId("dead-list"), named && `(${named}) see why: penstock dlq list`);
    put(byId("until"), flow.until ? moment(flow.until) : "no closed window yet");
    const trouble = [];
    if (flow.log) trouble.push(`The log cannot be read just now: ${flow.log}. What is shown is the last that was known.`);
    if (flow.unreadable) trouble.push(`${whole(flow.unreadable)} ${flow.unreadable === 1 ? "record" : "records"} cannot be read and left out; the newest: ${flow.flaw}. See: penstock topics tail ${flow.flaw.split("/")[0]}`);
    const banner = byId("trouble");
    banner.hidden = !trouble.length;
    put(banner, trouble.join(" "));
    heard(flow);
  }

  // ---- quality

  const charts = new WeakMap();

  function markOf(happening) {
    if (happening.kind === "alarm") return happening.state === "cleared" ? "cleared" : "alarm";
    if (happening.kind === "champion") return happening.state === "rolled back" ? "back" : "champion";
    return happening.kind === "fit" ? "fit" : "";
  }
  function path(steps, column, x, y) {
    let d = "", last = null;
    for (const step of steps) {
      const value = step[column];
      if (!some(value)) { last = null; continue; }
      const from = x(step.from).toFixed(1), to = x(step.to).toFixed(1), at = y(value).toFixed(1);
      d += last === step.from ? `V${at}H${to}` : `M${from} ${at}H${to}`;
      last = step.to;
    }
    return d;
  }
  function scale(low, high) {
    const span = high - low || 0.1;
    const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5].find((s) => span / s <= 5) || span / 4;
    const found = [];
    for (let at = Math.floor(low / step); at * step < high + step; at += 1) found.push(at * step);
    return { values: found, digits: step < 0.1 ? 2 : 1 };
  }
  function showQuality(section, model) {
    const steps = model.steps.map(([start, end, n, served, prior, challenger, first]) => (
      { start, end, n, served, prior, challenger, first, from: Date.parse(start), to: Date.parse(end) }));
    const box = part(section, "chart"), told = steps.some((s) => some(s.served) || some(s.prior));
    part(section, "chart-empty").hidden = told;
    box.hidden = part(section, "readout").hidden = !told;
    part(section, "challenger-key").hidden = !steps.some((s) => some(s.challenger));
    part(section, "first-key").hidden = !steps.some((s) => some(s.first));
    const before = charts.get(section);
    charts.set(section, { steps, model, cursor: before && before.cursor < steps.length ? before.cursor : -1 });
    if (told) drawQuality(section);
  }
  function drawQuality(section) {
    const chart = charts.get(section), box = part(section, "chart");
    if (!chart || box.hidden) return;
    const { steps, model } = chart;
    const W = Math.max(box.clientWidth, 280), H = 236, L = 42, R = 10, T = 44, B = 46, BARS = 20;
    const from = steps[0].from, to = steps[steps.length - 1].to;
    const values = steps.flatMap((s) => [s.served, s.prior, s.challenger, s.first]).filter(some);
    const axis = scale(Math.min(...values), Math.max(...values));
    const low = axis.values[0], high = axis.values[axis.values.length - 1];
    const x = (at) => L + ((at - from) / (to - from || 1)) * (W - L - R);
    const y = (v) => T + (1 - (v - low) / (high - low || 1)) * (H - T - B);
    const svg = draw("svg", { viewBox: `0 0 ${W} ${H}`, width: W, height: H, "aria-hidden": "true" });
    const hatch = `hatch-${section.dataset.model}`;
    svg.append(draw("defs", {}, draw("pattern", { id: hatch, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, draw("line", { class: "hatch", x1: 0, y1: 0, x2: 0, y2: 6 }))));
    let known = from;
    for (const step of steps) { // what no label is known of is hatched
      if (some(step.served)) {
        if (step.from > known) svg.append(gap(known, step.from));
        known = step.to;
      }
    }
    if (to > known) svg.append(gap(known, to));
    function gap(a, b) {
      const title = draw("title");
      title.textContent = `no label of a served answer from ${moment(a)} to ${moment(b)}`;
      return draw("rect", { x: x(a), y: T, width: x(b) - x(a), height: H - T - B, fill: `url(#${hatch})` }, title);
    }
    for (const value of axis.values) {
      svg.append(draw("line", { class: "grid", x1: L, x2: W - R, y1: y(value), y2: y(value) }),
        draw("text", { class: "tick", x: L - 6, y: y(value) + 3.5, "text-anchor": "end" }, value.toFixed(axis.digits)));
    }
    for (const tick of ticks(from, to, Math.max(2, Math.floor((W - L) / 90)))) {
      svg.append(draw("line", { class: "grid", x1: x(tick.at), x2: x(tick.at), y1: H - B, y2: H - B + 4 + BARS }),
        draw("text", { class: "tick", x: x(tick.at), y: H - 4, "text-anchor": x(tick.at) > W - 24 ? "end" : "middle" }, tick.text));
    }
    const most = Math.max(1, ...steps.map((s) => s.n));
    for (const step of steps) {
      const height = (step.n / most) * BARS, width = Math.max(0.5, x(step.to) - x(step.from) - 0.6);
      if (height) svg.append(draw("rect", { class: "bar", x: x(step.from) + 0.3, y: H - B + 4 + BARS - height, width, height }));
    }
    for (const mark of model.happenings) {
      const at = Date.parse(mark.at), kind = markOf(mark);
      if (!kind || at < from || at > to) continue;
      const lane = 14 + LANES[kind] * 13;
      const title = draw("title");
      title.textContent = `${moment(mark.at)} ${mark.text}`;
      const sign = draw("text", { class: `sign ${kind}`, x: x(at), y: lane, "text-anchor": "middle" }, SIGNS[kind]);
      sign.append(title);
      svg.append(draw("line", { class: `rule ${kind}`, x1: x(at), x2: x(at), y1: lane + 2, y2: H - B }), sign);
    }
    for (const column of ["prior", "first", "challenger", "served"]) svg.append(draw("path", { class: `line ${column}`, d: path(steps, column, x, y) }));
    svg.append(draw("line", { class: "cursor", x1: 0, x2: 0, y1: T, y2: H - B, visibility: "hidden" }));
    box.replaceChildren(svg);
    chart.x = x;
    chart.at = (px) => steps.findIndex((s) => px >= x(s.from) && px < x(s.to));
    readQuality(section);
  }
  function readQuality(section) {
    const chart = charts.get(section), { steps, model } = chart;
    let at = chart.cursor;
    const line = part(section, "chart").querySelector(".cursor");
    line.setAttribute("visibility", at < 0 ? "hidden" : "visible");
    if (at < 0) at = steps.findLastIndex((s) => some(s.served));
    if (at < 0) at = steps.length - 1;
    const step = steps[at], middle = chart.x((step.from + step.to) / 2);
    line.setAttribute("x1", middle);
    line.setAttribute("x2", middle);
    const gain = some(step.served) && step.prior ? 100 * (1 - step.served / step.prior) : null;
    const skill = some(gain) ? `, ${gain >= 0 ? "better" : "WORSE"} than the prior by ${Math.abs(gain).toFixed(1)} %` : "";
    const tried = some(step.challenger) ? `, challenger ${fixed(step.challenger, 4)}` : "";
    const before = some(step.first) ? `, first model ${fixed(step.first, 4)}` : "";
    const served = some(step.served) ? `served ${fixed(step.served, 4)}` : "no label of a served answer";
    const wide = model.covers > 1 ? ` (${model.covers} windows a step)` : "";
    put(part(section, "readout"), `${chart.cursor < 0 ? "newest: " : ""}${moment(step.start)} to ${moment(step.end)}${wide}: ${served}, prior ${fixed(step.prior, 4)}${skill}${before}${tried}; ${whole(step.n)} labels`);
  }
  function moveQuality(section, cursor) {
    const chart = charts.get(section);
    if (!chart || !chart.x) return;
    chart.cursor = Math.max(-1, Math.min(chart.steps.length - 1, cursor));
    readQuality(section);
  }

  // ---- drift

  const maps = new WeakMap();

  function level(cell) {
    const times = cell[1] ? cell[0] / cell[1] : 0;
    const strength = times < 0.5 ? 0 : times < 1 ? 1 : times < 2 ? 2 : times < 4 ? 3 : times < 7 ? 4 : 5;
    return { times, strength, sign: times < 0.5 ? "" : times < 1 ? "·" : times < 10 ? String(Math.floor(times)) : "+" };
  }
  function showDrift(section, heat) {
    const box = part(section, "heat");
    part(section, "heat-empty").hidden = heat.rows.length > 0;
    box.hidden = part(section, "heat-readout").hidden = !heat.rows.length;
    const table = make("table", { tabindex: "0", "aria-label": "Drift by input and window; arrow keys read it cell by cell" });
    const head = make("tr", {}, make("td"));
    const each = heat.columns.length < 12 ? 1 : Math.max(3, Math.ceil(heat.columns.length / 9)); // a date is as wide as three narrow columns
    heat.columns.forEach((end, at) => {
      const shown = (heat.columns.length - 1 - at) % each === 0;
      head.append(make("th", { scope: "col" }, make("span", {}, shown ? moment(end).slice(5, 10) : "")));
    });
    table.append(make("thead", {}, head));
    const body = make("tbody");
    heat.rows.forEach((row, r) => {
      const line = make("tr", {}, make("th", { scope: "row", title: row.input }, row.input));
      row.cells.forEach((cell, c) => {
        const td = make("td", { "data-r": r, "data-c": c });
        if (!some(cell)) td.className = "none";
        else {
          const { strength, sign } = level(cell);
          td.className = `h${strength}`;
          td.textContent = sign;
        }
        line.append(td);
      });
      body.append(line);
    });
    table.append(body);
    table.style.minWidth = `${146 + 14 * heat.columns.length}px`; // a digit stays readable; narrower pages scroll
    const focused = document.activeElement && box.contains(document.activeElement), before = maps.get(section);
    box.replaceChildren(table);
    if (!before) box.scrollLeft = box.scrollWidth; // the newest windows are on the right
    maps.set(section, { heat, r: before ? before.r : -1, c: before ? before.c : -1 });
    if (focused) table.focus();
    if (heat.rows.length) readDrift(section);
  }
  function readDrift(section) {
    const map = maps.get(section), { heat } = map, box = part(section, "heat");
    for (const old of box.querySelectorAll(".at")) old.classList.remove("at");
    const legend = `multiples of the limit: blank under ½, · under 1, digits from 1, + from 10; hatched: not tested. Reference: ${heat.reference || "none"}`
      + (heat.rows.length < heat.inputs ? `. The ${heat.rows.length} of ${heat.inputs} inputs that moved most` : "");
    if (map.r < 0 || map.r >= heat.rows.length || map.c >= heat.columns.length) return put(part(section, "heat-readout"), legend);
    const row = heat.rows[map.r], cell = row.cells[map.c], when = `window to ${moment(heat.columns[map.c])}`;
    const td = box.querySelector(`td[data-r="${map.r}"][data-c="${map.c}"]`);
    td.classList.add("at");
    put(part(section, "heat-readout"), some(cell)
      ? `${row.input}, ${when}: KS ${cell[0].toFixed(3)}, limit ${cell[1].toFixed(3)} (${level(cell).times.toFixed(1)} times), ${whole(cell[2])} values`
      : `${row.input}, ${when}: not tested`);
  }
  function moveDrift(section, r, c) {
    const map = maps.get(section);
    if (!map) return;
    map.r = Math.max(0, Math.min(map.heat.rows.length - 1, r));
    map.c = Math.max(0, Math.min(map.heat.columns.length - 1, c));
    readDrift(section);
  }

  // ---- rollout, alarms, happenings

  function showRollout(section, model) {
    const { champion, challenger, online } = model;
    const told = (v) => [make("b", {}, v.version), ` since ${moment(v.at)}, by ${v.actor}`, make("small", {}, v.reason)];
    part(section, "champion").replaceChildren(...(champion ? told(champion) : ["none"]));
    part(section, "online").replaceChildren(...(online ? [make("b", {}, online.version), ` since ${moment(online.at)}`] : ["none"]));
    part(section, "champion-empty").hidden = Boolean(champion);
    const tried = [];
    if (challenger) {
      const share = challenger.share ? `canary ${(100 * challenger.share).toFixed(0)} % of entities` : "in shadow: answers nothing";
      tried.push(make("b", {}, challenger.version), ` ${share} since ${moment(challenger.at)}`);
      const t = challenger.evidence;
      tried.push(make("small", {}, t.n && Number.isFinite(t.mean)
        ? `${t.loss || "log loss"} ${t.mean > 0 ? "+" : "−"}${Math.abs(t.mean).toFixed(4)} ± ${Number.isFinite(t.error) ? fixed(t.error, 4) : "–"} against ${t.against} on ${whole(t.n)} outcomes`
        : "no outcome to judge it by yet"));
    }
    part(section, "challenger").replaceChildren(...(challenger ? tried : ["none in rollout"]));
    const now = challenger ? (Number.isInteger(challenger.evidence.stage) ? challenger.evidence.stage : 0) : -1;
    for (const li of part(section, "ladder").children) {
      const here = Number(li.dataset.stage) === now;
      li.classList.toggle("now", here);
      li.classList.toggle("done", Number(li.dataset.stage) < now);
      if (here) li.setAttribute("aria-current", "step"); else li.removeAttribute("aria-current");
    }
    put(part(section, "skill"), fixed(model.skill, 3));
    put(part(section, "auc"), fixed(model.auc, 3));
    put(part(section, "judged"), model.judged ? whole(model.judged) : "–");
  }
  function showAlarms(section, alarms) {
    part(section, "alarms-empty").hidden = alarms.length > 0;
    part(section, "alarms").replaceChildren(...alarms.map((alarm) => make("li", {},
      make("p", { class: "raised" }, make("span", { "aria-hidden": "true" }, "▲ "), make("b", {}, alarm.signal), ` since ${moment(alarm.since)}, evidence as of ${moment(alarm.at)}`),
      make("ul", { class: "facts" }, ...alarm.facts.map((fact) => make("li", {}, fact))))));
  }
  function showNews(section, happenings) {
    part(section, "news-empty").hidden = happenings.length > 0;
    const list = part(section, "news");
    list.hidden = !happenings.length;
    list.replaceChildren(...happenings.slice(0, LISTED).map((h) => make("li", { class: `${h.kind.replace(/\W/g, "-")} ${h.state.replace(/\W/g, "-")}` },
      make("time", {}, moment(h.at)), make("span", { class: "kind" }, make("span", { "aria-hidden": "true" }, `${h.state === "cleared" ? "△" : h.state === "rolled back" ? "◀" : LOUD[h.kind] || "·"} `), h.kind), make("span", { class: "text" }, h.text))));
  }

  function showModels(models) {
    for (const section of document.querySelectorAll("[data-model]")) {
      const model = models[Number(section.dataset.model)];
      if (!model) continue;
      showQuality(section, model);
      showDrift(section, model.heat);
      showRollout(section, model);
      showAlarms(section, model.alarms);
      showNews(section, model.happenings);
    }
  }

  // ---- hands

  for (const section of document.querySelectorAll("[data-model]")) {
    const chart = part(section, "chart"), map = part(section, "heat");
    const place = (event) => charts.get(section)?.at?.(event.clientX - chart.getBoundingClientRect().left) ?? -1;
    chart.addEventListener("pointermove", (event) => moveQuality(section, place(event)));
    chart.addEventListener("pointerleave", () => moveQuality(section, -1));
    chart.addEventListener("keydown", (event) => {
      const held = charts.get(section);
      if (!held) return;
      const at = held.cursor < 0 ? held.steps.length : held.cursor;
      const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: held.steps.length - 1, Escape: -1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      moveQuality(section, to);
    });
    map.addEventListener("pointerover", (event) => {
      const cell = event.target.closest("td[data-r]");
      if (cell) moveDrift(section, Number(cell.dataset.r), Number(cell.dataset.c));
    });
    map.addEventListener("keydown", (event) => {
      const held = maps.get(section);
      if (!held) return;
      const r = Math.max(held.r, 0), c = held.r < 0 ? held.heat.columns.length : held.c;
      const to = { ArrowLeft: [r, c - 1], ArrowRight: [r, c + 1], ArrowUp: [r - 1, c], ArrowDown: [r + 1, c] }[event.key];
      if (!to) return;
      event.preventDefault();
      moveDrift(section, ...to);
    });
    new ResizeObserver(() => drawQuality(section)).observe(chart);
  }
  for (const how of document.querySelectorAll("details.how")) {
    how.addEventListener("keydown", (event) => { if (event.key === "Escape") how.open = false; });
  }

  // ---- news from the server

  let last = 0, source = null;
  document.body.classList.add("unheard"); // until everything was read once nothing is known to be empty

  function status(state, text) {
    byId("status").dataset.state = state;
    put(byId("status-text"), text);
  }
  function heard(flow) {
    last = performance.now();
    if (flow.log) status("lost", "log away");
    else if (document.body.classList.contains("unheard")) status("waiting", "catching up");
    else status("live", "live");
  }
  function listen() {
    source = new EventSource("events");
    const take = (event) => {
      const seen = JSON.parse(event.data);
      if (!seen.flow.behind && !seen.flow.log) document.body.classList.remove("unheard");
      showFlow(seen.flow);
      if (seen.models) showModels(seen.models);
    };
    source.addEventListener("picture", take);
    source.addEventListener("flow", take);
    source.addEventListener("error", () => {
      status("lost", "connection lost, trying again");
      if (source.readyState === EventSource.CLOSED) setTimeout(listen, 3000); // refused: the browser does not try again by itself
    });
  }
  setInterval(() => {
    const quiet = Math.round((performance.now() - last) / 1000);
    if (last && quiet > 5) status("lost", "no news from the dashboard");
  }, 1000);
  listen();
})();
