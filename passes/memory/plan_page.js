/* plan_page.js -- draws the page of `zmc plan --html` from the plan in it.  Names come from models and paths: they only ever
 * become text nodes. */
'use strict';
(() => {
const plan = JSON.parse(document.getElementById('plan').textContent);
const rank = plan.per_rank[0], peak = plan.peak, buffers = plan.buffers;
const ALIGN = 64;            // of every buffer's start: what it leaves free is padding
const MAX_COLUMNS = 1000;    // of the timeline
const ROWS = 200;            // of the table, more on demand
const CATEGORIES = ['params', 'master', 'optimizer', 'grads', 'activations', 'gathered', 'workspace', 'inputs', 'other'];
const $ = id => document.getElementById(id);

function el(tag, text, attrs = {}) {
  const e = document.createElement(tag);
  if (text !== undefined) e.textContent = text;
  for (const k in attrs) e.setAttribute(k, attrs[k]);
  return e;
}

function human(bytes) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let v = Math.abs(bytes), u = 0;
  for (; v >= 1024 && u < 4; u++) v /= 1024;
  return (bytes < 0 ? '-' : '') + (u ? v.toFixed(2) : v) + ' ' + units[u];
}
const count = n => n.toLocaleString('en');
const bytesCell = bytes => el('td', human(bytes), {class: 'n', 'data-bytes': bytes, title: count(bytes) + ' B'});
const numberCell = text => el('td', text, {class: 'n'});
const color = cat => getComputedStyle(document.documentElement).getPropertyValue('--' + cat).trim();

function row(cells) {
  const tr = el('tr');
  tr.append(...cells);
  return tr;
}

// ---- head and summary ----

function drawHead() {
  document.title = plan.model + ': memory plan';
  $('model').textContent = plan.model;
  const cast = ['autocast', 'pure'].includes(plan.amp) ? ' ' + plan.amp : '';
  $('settings').textContent = `${count(plan.params)} parameters, micro-batch ${plan.micro_batch}, accumulate ${plan.accumulate}, ` +
    `${plan.ranks} rank${plan.ranks > 1 ? 's' : ''}, zero ${plan.zero}, ${plan.precision}${cast}`;
}

function drawSummary() {
  const body = $('summary').tBodies[0];
  const line = (name, key) => {
    const tr = row([el('th', name, {scope: 'row'}), numberCell(count(rank[key]) + ' B'), bytesCell(rank[key])]);
    tr.id = 'sum-' + key;
    body.append(tr);
  };
  const text = (name, value, key) => {
    const tr = row([el('th', name, {scope: 'row'}), numberCell(value), el('td')]);
    tr.id = 'sum-' + key;
    body.append(tr);
  };
  for (const c of CATEGORIES) if (rank[c]) line(c, c);
  line('padding', 'padding');
  line('peak live', 'peak_live');
  line('arena', 'arena');
  text('fragmentation', (100 * rank.fragmentation).toFixed(3) + ' %', 'fragmentation');
  line('lower bound', 'lower_bound');
  text('gap', (100 * rank.gap).toFixed(3) + ' %', 'gap');
  text('packed by', rank.plan_step, 'plan_step');
  line('states', 'states');
  line('closed form', 'closed_form');
  text('flops', plan.flops.toPrecision(4) + ' per step', 'flops');
}

// ---- the timeline ----

/* Bytes of each layer at each op of the peak's function.  States that live from step to step are the lowest layers. */
function timelineLayers() {
  const func = plan.funcs.find(f => f.name === peak.func);
  const n = func ? func.ops + 1 : 1, base = func ? func.from : 0;
  const layers = new Map();
  const at = (cat, always) => {
    const key = cat + (always ? ', always' : '');
    if (!layers.has(key)) layers.set(key, {label: key, cat, always, bytes: new Float64Array(n)});
    return layers.get(key).bytes;
  };
  const padding = at('padding', false);
  const add = (to, bytes, from, end) => {
    to[from] += bytes;
    if (end + 1 < n) to[end + 1] -= bytes;
  };
  for (const b of buffers) {
    if (b.func && b.func !== peak.func) continue;
    const from = b.func ? b.from - base : 0, end = b.func ? b.to - base : n - 1;
    add(at(b.cat, !b.func), b.bytes, from, end);
    add(padding, (ALIGN - b.bytes % ALIGN) % ALIGN, from, end);
  }
  const order = l => (l.cat === 'padding' ? 99 : CATEGORIES.indexOf(l.cat)) + (l.always ? 0 : 20);
  const sorted = [...layers.values()].sort((x, y) => order(x) - order(y));
  const total = new Float64Array(n);
  for (const l of sorted)
    for (let i = 0, sum = 0; i < n; i++) {
      sum += l.bytes[i];
      l.bytes[i] = sum;
      total[i] += sum;
    }
  return {n, layers: sorted, total};
}

/* The op that each column shows: the one with most live bytes among those that fall into it. */
function timelineColumns(t) {
  const w = Math.min(t.n, MAX_COLUMNS), op = new Int32Array(w);
  for (let c = 0; c < w; c++) {
    const end = Math.floor((c + 1) * t.n / w);
    op[c] = Math.floor(c * t.n / w);
    for (let i = op[c]; i < end; i++) if (t.total[i] > t.total[op[c]]) op[c] = i;
  }
  return op;
}

function svg(tag, attrs) {
  const e = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const k in attrs) e.setAttribute(k, attrs[k]);
  return e;
}

const opText = i => {
  const o = peak.ops[i];
  return o ? `op ${i}: ${o.op}${o.loc ? ', ' + o.loc : ''}` : `op ${i}: end`;
};

function drawTimeline() {
  const t = timelineLayers(), columns = timelineColumns(t), w = columns.length, box = $('timeline');
  const top = Math.max(rank.arena, ...columns.map(i => t.total[i]), 1) * 1.04;
  const y = bytes => +(320 - 320 * bytes / top).toFixed(2), x = c => +(1000 * c / w).toFixed(2);
  const low = new Float64Array(w);
  for (const l of t.layers) {
    let up = '', down = '';
    for (let c = 0; c < w; c++) {
      up += `L${x(c)} ${y(low[c] + l.bytes[columns[c]])}H${x(c + 1)}`;
      down = `L${x(c + 1)} ${y(low[c])}H${x(c)}` + down;
      low[c] += l.bytes[columns[c]];
    }
    box.append(svg('path', {d: 'M' + up.slice(1) + down + 'Z', style: `fill:var(--${l.cat})`, 'data-layer': l.label}));
  }
  const across = (id, bytes) => svg('line', {id, x1: 0, x2: 1000, y1: y(bytes), y2: y(bytes)});
  const upright = (id, i) => svg('line', {id, x1: 1000 * (i + .5) / t.n, x2: 1000 * (i + .5) / t.n, y1: 0, y2: 320});
  box.append(across('arena-line', rank.arena), upright('cursor', peak.op), upright('mark', peak.op));
  for (let k = 0; k <= 4; k++) {
    const tick = el('span', human(top / 1.04 * k / 4));
    tick.style.top = y(top / 1.04 * k / 4) + 'px';
    $('ticks').append(tick);
  }
  $('peak-func').textContent = '@' + peak.func;
  $('timeline-note').textContent = `The peak, ${human(t.total[peak.op])}, is marked: ${opText(peak.op)}. Dashed: the arena. ` +
    (w < t.n ? `Each of ${w} columns shows the op with most bytes among ${Math.ceil(t.n / w)}. ` : '') +
    'Point at an op, or focus the picture and press arrows, Page Up, Page Down, Home, End; P is the peak.';
  $('timeline').setAttribute('data-peak-bytes', t.total[peak.op]);
  const choose = layersTable(t);
  followOps(box, t, choose);
}

function layersTable(t) {
  const cells = t.layers.map(l => {
    const name = el('th', l.label, {scope: 'row'}), now = numberCell('');
    name.prepend(el('span', undefined, {class: 'swatch', style: `background:var(--${l.cat})`}));
    $('layers').tBodies[0].append(row([name, bytesCell(l.bytes[peak.op]), now]));
    return now;
  });
  return i => {
    const mid = 1000 * (i + .5) / t.n;
    $('cursor').setAttribute('x1', mid);
    $('cursor').setAttribute('x2', mid);
    t.layers.forEach((l, k) => {
      cells[k].textContent = human(l.bytes[i]);
      cells[k].setAttribute('data-bytes', l.bytes[i]);
    });
    $('at-op').textContent = `${opText(i)}, ${human(t.total[i])} live`;
    $('at-op').setAttribute('data-bytes', t.total[i]);
    $('timeline').setAttribute('aria-valuenow', i);
    $('timeline').setAttribute('aria-valuetext', $('at-op').textContent);
  };
}

function followOps(box, t, show) {
  let at = peak.op;
  const choose = i => show(at = Math.max(0, Math.min(t.n - 1, i)));
  box.setAttribute('aria-valuemax', t.n - 1);
  box.addEventListener('mousemove', e => {
    const r = box.getBoundingClientRect();
    choose(Math.floor((e.clientX - r.left) / r.width * t.n));
  });
  box.addEventListener('keydown', e => {
    const page = Math.max(1, Math.round(t.n / 20));
    const to = {ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1, PageUp: at + page,
                PageDown: at - page, Home: 0, End: t.n - 1, p: peak.op, P: peak.op}[e.key];
    if (to === undefined || e.ctrlKey || e.metaKey || e.altKey) return;
    e.preventDefault();
    choose(to);
  });
  const fromLink = () => {
    const link = /^#op=(\d+)$/.exec(location.hash);
    choose(link ? +link[1] : peak.op);
  };
  window.addEventListener('hashchange', fromLink);
  fromLink();
}

// ---- buffers at the peak ----

const COLUMNS = [
  {name: 'buffer', key: b => b.name}, {name: 'category', key: b => b.cat}, {name: 'bytes', key: b => b.bytes, n: true},
  {name: 'offset', key: b => b.offset, n: true}, {name: 'live', key: b => b.to - b.from, n: true}, {name: 'line', key: b => lineKey(b.loc)},
];

/* "gpt2.zm:9:10" sorts by numbers where numbers are. */
const lineKey = loc => loc.replace(/\d+/g, d => d.padStart(9, '0'));

function peakBuffers() {
  const func = plan.funcs.find(f => f.name === peak.func), at = (func ? func.from : 0) + peak.op;
  return buffers.filter(b => !b.func || (b.func === peak.func && b.from <= at && at <= b.to));
}

function drawPeak() {
  const all = peakBuffers(), base = (plan.funcs.find(f => f.name === peak.func) || {from: 0}).from;
  let by = 2, down = true, shown = ROWS;
  const cells = b => [
    el('td', b.name), el('td', b.cat), bytesCell(b.bytes), numberCell(count(b.offset)),
    numberCell(b.func ? `${b.from - base}\u2013${b.to - base}` : 'always'), el('td', b.loc)];
  const draw = () => {
    const key = COLUMNS[by].key, sign = down ? -1 : 1;
    all.sort((x, y) => (key(x) < key(y) ? -sign : key(x) > key(y) ? sign : x.offset - y.offset));
    $('peak').tBodies[0].replaceChildren(...all.slice(0, shown).map(b => row(cells(b))));
    const rest = all.slice(shown), bytes = rest.reduce((s, b) => s + b.bytes, 0);
    $('peak').tFoot.replaceChildren();
    if (rest.length) $('peak').tFoot.append(row([el('td', `${count(rest.length)} more, together`), el('td'), bytesCell(bytes)]));
    $('more').hidden = !rest.length;
    [...$('peak').tHead.rows[0].cells].forEach((th, i) =>
      th.setAttribute('aria-sort', i !== by ? 'none' : down ? 'descending' : 'ascending'));
  };
  COLUMNS.forEach((c, i) => {
    const th = el('th', undefined, {scope: 'col', class: c.n ? 'n' : ''}), button = el('button', c.name, {type: 'button'});
    button.addEventListener('click', () => {
      down = i === by ? !down : !!c.n;
      by = i;
      draw();
    });
    th.append(button);
    $('peak').tHead.rows[0].append(th);
  });
  $('more').addEventListener('click', () => { shown += 1000; draw(); });
  const bytes = all.reduce((s, b) => s + b.bytes, 0);
  $('peak-note').textContent = `${count(all.length)} buffers, ${human(bytes)}, at ${opText(peak.op)}. ` +
    'A button in the head sorts by its column.';
  $('peak-note').setAttribute('data-count', all.length);
  $('peak-note').setAttribute('data-bytes', bytes);
  draw();
}

// ---- the arena ----

const bufferText = b => `${b.name}: ${b.cat}, ${human(b.bytes)} at ${count(b.offset)}, ` +
  (b.func ? `@${b.func}, times ${b.from}\u2013${b.to}` : 'always') + (b.loc ? ', ' + b.loc : '');

function arenaMap() {
  const canvas = $('arena'), end = Math.max(1, ...plan.funcs.map(f => f.from + f.ops + 1)), arena = Math.max(1, rank.arena);
  const order = [...buffers].sort((x, y) => x.offset - y.offset || x.from - y.from);
  let drawn = [], chosen = null;
  const size = () => [canvas.clientWidth || 1000, canvas.clientHeight || 420];
  const place = b => {
    const [w, h] = size();
    return [w * b.from / end, h * b.offset / arena, w * (b.to + 1 - b.from) / end, h * b.bytes / arena];
  };
  const draw = () => {
    const [w, h] = size(), scale = window.devicePixelRatio || 1, g = canvas.getContext('2d');
    canvas.width = w * scale;
    canvas.height = h * scale;
    g.scale(scale, scale);
    const colors = Object.fromEntries([...CATEGORIES, 'small'].map(c => [c, color(c)]));
    drawn = [];
    g.fillStyle = colors.small;
    for (const b of order) {
      const [x, y, dx, dy] = place(b);
      if (dy >= 1 && dx >= 1) drawn.push(b);
      else g.fillRect(Math.floor(x), Math.floor(y), Math.max(1, dx), Math.max(1, dy));
    }
    for (const b of drawn) {
      const [x, y, dx, dy] = place(b);
      g.fillStyle = colors[b.cat];
      g.fillRect(x, y, Math.max(1, dx - .4), Math.max(1, dy - .4));
    }
    g.fillStyle = color('text');
    g.font = '11px system-ui, sans-serif';
    for (const f of plan.funcs) {
      g.fillRect(w * f.from / end, 0, 1, h);
      g.fillText('@' + f.name, w * f.from / end + 4, h - 4);
    }
    if (chosen) {
      const [x, y, dx, dy] = place(chosen);
      g.lineWidth = 2;
      g.strokeStyle = color('mark');
      g.strokeRect(x, y, Math.max(2, dx), Math.max(2, dy));
    }
    note();
  };
  const note = () => {
    const small = buffers.length - drawn.length;
    $('arena-note').textContent = `Time, op by op through the functions, to the right; offsets from 0 to ${human(rank.arena)} down. ` +
      (small ? `${count(small)} of ${count(buffers.length)} buffers are smaller than a pixel and are drawn grey, without a name. ` : '') +
      'Point at a buffer, or focus the picture and press arrows.';
    canvas.setAttribute('data-drawn', drawn.length);
    canvas.setAttribute('data-small', small);
    canvas.setAttribute('aria-label', `map of the arena, ${count(drawn.length)} buffers; arrows go from one to the next`);
  };
  const choose = b => {
    if (b === chosen) return;
    chosen = b;
    $('at-buffer').textContent = b ? bufferText(b) : '';
    draw();
  };
  return {canvas, draw, choose, place, drawn: () => drawn, chosen: () => chosen};
}

function drawArena() {
  const map = arenaMap();
  map.canvas.addEventListener('mousemove', e => {
    const r = map.canvas.getBoundingClientRect(), x = e.clientX - r.left, y = e.clientY - r.top;
    map.choose(map.drawn().find(b => {
      const [bx, by, dx, dy] = map.place(b);
      return bx <= x && x < bx + dx && by <= y && y < by + dy;
    }) || null);
  });
  map.canvas.addEventListener('keydown', e => {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[e.key], all = map.drawn();
    if (step === undefined || !all.length || e.ctrlKey || e.metaKey || e.altKey) return;
    e.preventDefault();
    const at = all.indexOf(map.chosen());
    map.choose(all[at < 0 ? 0 : (at + step + all.length) % all.length]);
  });
  window.addEventListener('resize', map.draw);
  window.matchMedia('(prefers-color-scheme: dark)').addEventListener('change', map.draw);
  map.draw();
}

// ---- recomputation and communication ----

function drawRecompute() {
  const r = plan.recompute;
  if (!r) return;
  $('recompute-section').hidden = false;
  $('recompute-note').textContent = `${r.steps} of ${r.of} steps; arena without ${human(r.arena_without)}, ` +
    `saved ${human(r.arena_without - rank.arena)}; ${r.flops.toPrecision(4)} more flops`;
  $('recompute').tBodies[0].append(...r.values.map(v =>
    row([el('td', v.loc), bytesCell(v.saved), numberCell(v.flops.toPrecision(4)), numberCell(count(v.ops)), el('td', v.dearest)])));
}

/* Equal buckets, those of layers, are one row. */
function bucketRows(list) {
  const rows = new Map();
  for (const b of list) {
    const key = [b.elems, b.gathers, b.gather_bytes, b.reductions, b.wire_bytes, b.bytes].join();
    if (!rows.has(key)) rows.set(key, {first: b, n: 0});
    rows.get(key).n++;
  }
  return [...rows.values()];
}

function drawComm() {
  $(plan.comm.length ? 'comm' : 'comm-none').hidden = false;
  $('comm').tBodies[0].append(...plan.comm.map(c =>
    row([el('td', c.op), el('td', c.axis), el('td', c.what), numberCell(count(c.count)), bytesCell(c.bytes)])));
  if (!plan.comm_buckets.length) return;
  const times = (n, bytes) => (n ? `${n} \u00d7 ${bytes} B` : '\u2013');
  $('comm-buckets').hidden = false;
  $('comm-buckets').tBodies[0].append(...bucketRows(plan.comm_buckets).map(r =>
    row([el('td', r.n > 1 ? `${r.first.name} and ${r.n - 1} more, each` : r.first.name), numberCell(count(r.first.elems)),
         numberCell(times(r.first.gathers, r.first.gather_bytes)), numberCell(times(r.first.reductions, r.first.wire_bytes)),
         bytesCell(r.first.bytes)])));
  const all = plan.comm_buckets.reduce((s, b) => s + b.bytes, 0);
  $('comm-buckets').tFoot.append(row([el('td', `all ${plan.comm_buckets.length}`), el('td'), el('td'), el('td'), bytesCell(all)]));
}

// ---- ranks and stages ----

const stageColor = zero => `var(--zero-${zero})`;

/* Arena over ranks, a line a stage; both axes are logarithmic. */
function drawSweepChart(plans, memory) {
  const ranks = [...new Set(plans.map(p => p.ranks))], stages = [...new Set(plans.map(p => p.zero))];
  const sizes = plans.map(p => p.arena).concat(memory || []);
  const low = Math.log2(Math.min(...sizes)) - .3, high = Math.log2(Math.max(...sizes)) + .3;
  const x = n => 1000 * (.5 + ranks.indexOf(n)) / ranks.length, y = bytes => 320 * (high - Math.log2(bytes)) / (high - low);
  const box = $('sweep-chart');
  for (const z of stages)
    box.append(svg('polyline', {points: plans.filter(p => p.zero === z).map(p => `${x(p.ranks)},${y(p.arena).toFixed(2)}`).join(' '),
                                style: `stroke:${stageColor(z)}`, 'data-zero': z}));
  if (memory) box.append(svg('line', {id: 'sweep-memory', x1: 0, x2: 1000, y1: y(memory), y2: y(memory)}));
  for (let k = 0; k <= 4; k++) {
    const bytes = 2 ** (low + (high - low) * k / 4), tick = el('span', human(Math.round(bytes)));
    tick.style.top = y(bytes) + 'px';
    $('sweep-ticks').append(tick);
  }
  for (const n of ranks) {
    const tick = el('span', n);
    tick.style.left = x(n) / 10 + '%';
    $('sweep-ranks').append(tick);
  }
  box.setAttribute('aria-label', `arena of a rank over ${ranks.join(', ')} ranks for zero ${stages.join(', ')}; the table has the numbers`);
  $('sweep-legend').append(...stages.map(z => {
    const name = el('span', `zero ${z}`);
    name.prepend(el('span', undefined, {class: 'swatch', style: `background:${stageColor(z)}`}));
    return name;
  }));
}

function sweepAnswer(sweep) {
  if (!sweep.memory) return '';
  const fewest = Object.entries(sweep.fewest_ranks).map(([z, c]) => `zero ${z}: ${c ? `${c.ranks} rank${c.ranks > 1 ? 's' : ''}` : 'none'}`);
  const best = sweep.answer ? `${sweep.answer.ranks} rank${sweep.answer.ranks > 1 ? 's' : ''} with zero ${sweep.answer.zero}: the fewest that fit, and what sends least on them. ` : 'Nothing fits. ';
  return `${best}Fewest ranks that fit in ${human(sweep.memory)}: ${fewest.join(', ')}.`;
}

function drawSweep() {
  const sweep = plan.sweep;
  if (!sweep) return;
  const planned = sweep.plans.filter(p => !p.refused);
  $('sweep-section').hidden = false;
  $('sweep-note').textContent = 'Arena of a rank over the number of ranks. ' + (sweep.memory ? `Dashed: ${human(sweep.memory)}. ` : '') +
    `Sends least: among the stages ${sweep.memory ? 'that fit ' : ''}on as many ranks; of equals the smallest arena. ` +
    `The other sections show ${plan.ranks} rank${plan.ranks > 1 ? 's' : ''} with zero ${plan.zero}.`;
  $('sweep-answer').textContent = sweepAnswer(sweep);
  $('sweep').tBodies[0].append(...sweep.plans.map(p => {
    const head = [numberCell(count(p.ranks)), numberCell(p.zero)];
    if (p.refused) return row([...head, el('td', 'refused: ' + p.refused, {colspan: 6})]);
    const fits = [sweep.memory ? (p.fits ? 'yes' : 'no') : '', p.sends_least && p.ranks > 1 ? 'sends least' : ''].filter(t => t).join(', ');
    const tr = row([...head, ...['states', 'activations', 'gathered', 'arena', 'comm_bytes'].map(k => bytesCell(p[k])), el('td', fits)]);
    if (sweep.answer && p.ranks === sweep.answer.ranks && p.zero === sweep.answer.zero) tr.className = 'answer';
    return tr;
  }));
  drawSweepChart(planned, sweep.memory);
}

drawHead();
drawSummary();
drawTimeline();
drawPeak();
drawArena();
drawRecompute();
drawComm();
drawSweep();
document.documentElement.setAttribute('data-drawn', 'all');
})();
