"use strict";
(async () => {
  const $ = (id) => document.getElementById(id);
  const head = JSON.parse($("head").textContent), n = head.rows;
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const places = new Uint16Array(bytes(head.places).buffer), groupsOf = head.colors.map((c) => new Uint16Array(bytes(c.codes).buffer));
  const xs = new Float32Array(n), ys = new Float32Array(n);
  for (let i = 0; i < n; i++) { xs[i] = places[2 * i] / 65535 * 2 - 1; ys[i] = places[2 * i + 1] / 65535 * 2 - 1; }
  const stage = $("stage"), points = $("points"), over = $("over"), pen = over.getContext("2d");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let ids = null, texts = null, lower = null, by = 0, off = new Set(), found = null, chosen = null, near = -1, lasso = null, drawing = false;
  let scale = 1, cx = 0, cy = 0, width = 1, height = 1, ratio = 1, planned = 0;

  const NONE = [140, 146, 154];
  const color = (i, last) => {
    if (last) return NONE;
    const hue = (i * 137.508 + 210) % 360, light = (dark.matches ? 0.66 : 0.45) + (i % 3 - 1) * 0.06, s = 0.62;
    const f = (k) => { const q = (k + hue / 30) % 12; return Math.round(255 * (light - s * Math.min(light, 1 - light) * Math.max(-1, Math.min(q - 3, 9 - q, 1)))); };
    return [f(0), f(8), f(4)];
  };
  const palette = () => head.colors[by].names.map((_, i, all) => color(i, i === all.length - 1));
  const visible = (i) => !off.has(groupsOf[by][i]);
  const lit = (i) => visible(i) && (!found || found[i]) && (!chosen || chosen[i]);

  const shader = (gl, kind, source) => { const s = gl.createShader(kind); gl.shaderSource(s, source); gl.compileShader(s); return s; };
  const linked = (gl) => {
    const made = gl.createProgram();
    gl.attachShader(made, shader(gl, gl.VERTEX_SHADER, "attribute vec2 p;attribute vec4 c;uniform vec4 v;uniform mediump float s;varying vec4 k;void main(){gl_Position=vec4((p-v.xy)*v.zw,0.,1.);gl_PointSize=c.a>0.?s:0.;k=c;}"));
    gl.attachShader(made, shader(gl, gl.FRAGMENT_SHADER, "precision mediump float;varying vec4 k;uniform float s;void main(){if(k.a==0.)discard;float d=length(gl_PointCoord-.5)*s;float a=k.a*clamp(s*.5-d+.2,0.,1.);gl_FragColor=vec4(k.rgb*a,a);}"));
    gl.linkProgram(made);
    return gl.getProgramParameter(made, gl.LINK_STATUS) ? made : null;
  };
  const probe = document.createElement("canvas").getContext("webgl");
  const gl = probe && linked(probe) ? points.getContext("webgl", { antialias: false, alpha: true, premultipliedAlpha: true }) : null;
  const flat = gl ? null : points.getContext("2d");
  let program, placeBuffer, colorBuffer;
  if (gl) {
    program = linked(gl); gl.useProgram(program);
    const data = new Float32Array(2 * n); for (let i = 0; i < n; i++) { data[2 * i] = xs[i]; data[2 * i + 1] = ys[i]; }
    placeBuffer = gl.createBuffer(); gl.bindBuffer(gl.ARRAY_BUFFER, placeBuffer); gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
    colorBuffer = gl.createBuffer(); gl.enable(gl.BLEND); gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }
  const paint = new Uint8Array(4 * n);
  const recolor = () => {
    const colors = palette(), codes = groupsOf[by], strong = Math.round(255 * (n > 50000 ? 0.5 : n > 5000 ? 0.65 : 0.85));
    for (let i = 0; i < n; i++) { const c = colors[codes[i]]; paint[4 * i] = c[0]; paint[4 * i + 1] = c[1]; paint[4 * i + 2] = c[2]; paint[4 * i + 3] = !visible(i) ? 0 : lit(i) ? (found || chosen ? 235 : strong) : 18; }
    if (gl) { gl.bindBuffer(gl.ARRAY_BUFFER, colorBuffer); gl.bufferData(gl.ARRAY_BUFFER, paint, gl.DYNAMIC_DRAW); }
    draw();
  };
  const unit = () => Math.min(width, height) * 0.46 * scale;
  const px = (x) => width / 2 + (x - cx) * unit(), py = (y) => height / 2 - (y - cy) * unit();
  const size = () => Math.max(2, Math.min(12, (n < 1000 ? 7 : n < 30000 ? 3.2 : 2.2) * Math.pow(scale, 0.4)));
  const draw = () => { if (!planned) planned = requestAnimationFrame(render); };
  function render() {
    planned = 0;
    if (gl) {
      gl.viewport(0, 0, points.width, points.height); gl.clearColor(0, 0, 0, 0); gl.clear(gl.COLOR_BUFFER_BIT);
      gl.uniform4f(gl.getUniformLocation(program, "v"), cx, cy, 2 * unit() / width, 2 * unit() / height);
      gl.uniform1f(gl.getUniformLocation(program, "s"), size() * ratio);
      const attribute = (name, buffer, count, kind, normal) => { const at = gl.getAttribLocation(program, name); gl.bindBuffer(gl.ARRAY_BUFFER, buffer); gl.enableVertexAttribArray(at); gl.vertexAttribPointer(at, count, kind, normal, 0, 0); };
      attribute("p", placeBuffer, 2, gl.FLOAT, false); attribute("c", colorBuffer, 4, gl.UNSIGNED_BYTE, true);
      gl.drawArrays(gl.POINTS, 0, n);
    } else {
      flat.setTransform(ratio, 0, 0, ratio, 0, 0); flat.clearRect(0, 0, width, height);
      const s = size(); let last = "";
      for (let i = 0; i < n; i++) {
        const x = px(xs[i]), y = py(ys[i]); if (!paint[4 * i + 3] || x < 0 || y < 0 || x > width || y > height) continue;
        const style = `rgba(${paint[4 * i]},${paint[4 * i + 1]},${paint[4 * i + 2]},${paint[4 * i + 3] / 255})`;
        if (style !== last) flat.fillStyle = last = style;
        flat.fillRect(x - s / 2, y - s / 2, s, s);
      }
    }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0); pen.clearRect(0, 0, width, height);
    const style = getComputedStyle(document.body), ink = style.color, ground = style.backgroundColor;
    if (near >= 0) { pen.strokeStyle = ink; pen.lineWidth = 2; pen.beginPath(); pen.arc(px(xs[near]), py(ys[near]), size() / 2 + 4, 0, 7); pen.stroke(); }
    pen.font = "600 12.5px system-ui, sans-serif"; pen.textAlign = "center"; pen.textBaseline = "middle"; pen.lineJoin = "round";
    const boxes = [];
    for (const label of head.labels) {  // the largest first: smaller ones get room as the map grows
      if (!label.name || by === 0 && off.has(label.group)) continue;
      const x = px(label.x / 65535 * 2 - 1), y = py(label.y / 65535 * 2 - 1), w = pen.measureText(label.name).width / 2 + 8;
      if (x - w < 0 || x + w > width || y < 54 || y > height - 32) continue;
      if (boxes.some((b) => Math.abs(b.x - x) < b.w + w && Math.abs(b.y - y) < 24)) continue;
      boxes.push({ x, y, w });
      pen.strokeStyle = ground; pen.lineWidth = 4; pen.strokeText(label.name, x, y); pen.fillStyle = ink; pen.fillText(label.name, x, y);
    }
    if (lasso) { pen.strokeStyle = ink; pen.lineWidth = 1.5; pen.setLineDash([5, 4]); pen.beginPath(); lasso.forEach(([x, y]) => pen.lineTo(x, y)); pen.closePath(); pen.stroke(); pen.setLineDash([]); }
  }
  const resize = () => {
    ratio = devicePixelRatio || 1; width = stage.clientWidth; height = stage.clientHeight;
    for (const c of [points, over]) { c.width = Math.round(width * ratio); c.height = Math.round(height * ratio); }
    draw();
  };
  const zoom = (factor, x = width / 2, y = height / 2) => {
    const ux = cx + (x - width / 2) / unit(), uy = cy - (y - height / 2) / unit();
    scale = Math.max(0.5, Math.min(400, scale * factor)); cx = ux - (x - width / 2) / unit(); cy = uy + (y - height / 2) / unit(); draw();
  };
  const home = () => { scale = 1; cx = cy = 0; draw(); };
  const say = (text) => { $("status").textContent = text; };
  const total = () => `${n.toLocaleString()} rows${gl ? "" : ", drawn without WebGL"}`;

  const legend = () => {
    const list = $("legend"), codes = groupsOf[by], names = head.colors[by].names, colors = palette(), sizes = new Uint32Array(names.length);
    for (let i = 0; i < n; i++) sizes[codes[i]]++;
    list.textContent = "";
    names.forEach((name, code) => {
      if (!sizes[code]) return;
      const row = document.createElement("button"), label = document.createElement("span"), count = document.createElement("span");
      const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
      for (const [k, v] of [["cx", 5.5], ["cy", 5.5], ["r", 5], ["fill", `rgb(${colors[code]})`]]) dot.setAttribute(k, v);
      svg.append(dot); label.className = "name"; label.textContent = name; count.className = "size"; count.textContent = sizes[code].toLocaleString();
      row.append(svg, label, count); row.setAttribute("aria-pressed", String(!off.has(code)));
      row.title = "Click: hide or show. Double click: this one alone, or all.";
      row.onclick = () => { if (!off.delete(code)) off.add(code); row.setAttribute("aria-pressed", String(!off.has(code))); recolor(); };
      row.ondblclick = () => { const alone = off.size === names.length - 1 && !off.has(code); off = new Set(alone ? [] : names.keys()); off.delete(code); legend(); recolor(); };
      list.append(row);
    });
  };
  const choose = (mask) => {
    chosen = mask; $("chosen").hidden = !mask; $("list").textContent = "";
    if (mask) {
      const rows = []; for (let i = 0; i < n; i++) if (mask[i]) rows.push(i);
      $("count").textContent = `${rows.length.toLocaleString()} rows${rows.length > 500 ? ", the first 500:" : ""}`;
      for (const i of rows.slice(0, 500)) { const item = document.createElement("li"); item.textContent = texts ? texts[i] : ids ? ids[i] : i; $("list").append(item); }
    }
    recolor();
  };
  const inside = (shape) => {
    const mask = new Uint8Array(n);
    for (let i = 0; i < n; i++) {
      if (!visible(i) || found && !found[i]) continue;
      const x = px(xs[i]), y = py(ys[i]); let within = false;
      for (let a = 0, b = shape.length - 1; a < shape.length; b = a++) {
        const [ax, ay] = shape[a], [bx, by2] = shape[b];
        if (ay > y !== by2 > y && x < (bx - ax) * (y - ay) / (by2 - ay) + ax) within = !within;
      }
      mask[i] = within;
    }
    return mask;
  };
  const search = () => {
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length || !texts) { found = null; say(total()); recolor(); return; }
    lower = lower || texts.map((t) => t.toLowerCase());
    let count = 0; found = new Uint8Array(n);
    for (let i = 0; i < n; i++) if (words.every((w) => lower[i].includes(w))) { found[i] = 1; count++; }
    say(`${count.toLocaleString()} of ${n.toLocaleString()} rows have these words`); recolor();
  };
  const lassoMode = (on) => { drawing = on; $("lasso").setAttribute("aria-pressed", String(on)); stage.style.cursor = on ? "crosshair" : ""; };

  let drag = null;
  const at = (e) => { const r = stage.getBoundingClientRect(); return [e.clientX - r.left, e.clientY - r.top]; };
  over.onpointerdown = (e) => { over.setPointerCapture(e.pointerId); stage.focus({ preventScroll: true }); drag = at(e); if (drawing || e.shiftKey) lasso = [drag]; };
  over.onpointermove = (e) => {
    const [x, y] = at(e);
    if (lasso) { lasso.push([x, y]); draw(); return; }
    if (drag) { cx -= (x - drag[0]) / unit(); cy += (y - drag[1]) / unit(); drag = [x, y]; near = -1; $("tip").hidden = true; draw(); return; }
    let best = 100, hit = -1;
    for (let i = 0; i < n; i++) { const dx = px(xs[i]) - x, dy = py(ys[i]) - y, d = dx * dx + dy * dy; if (d < best && lit(i)) { best = d; hit = i; } }
    if (hit !== near) { near = hit; draw(); }
    const tip = $("tip"); tip.hidden = hit < 0;
    if (hit >= 0) {
      tip.textContent = texts ? texts[hit].slice(0, 400) : `row ${hit + 1}`;
      tip.style.left = `${Math.max(4, Math.min(x + 14, width - tip.offsetWidth - 4))}px`; tip.style.top = `${y + 18 + tip.offsetHeight > height ? y - tip.offsetHeight - 12 : y + 18}px`;
    }
  };
  over.onpointerup = over.onpointercancel = () => { if (lasso && lasso.length > 2) choose(inside(lasso)); drag = lasso = null; lassoMode(false); draw(); };
  over.onpointerleave = () => { near = -1; $("tip").hidden = true; draw(); };
  stage.addEventListener("wheel", (e) => { e.preventDefault(); zoom(Math.exp(-e.deltaY * (e.deltaMode ? 0.05 : 0.0015)), ...at(e)); }, { passive: false });
  addEventListener("keydown", (e) => {
    if (e.key === "Escape") { $("search").value = ""; found = null; lassoMode(false); choose(null); say(total()); stage.focus(); return; }
    if (e.ctrlKey || e.metaKey || e.altKey || /INPUT|SELECT/.test(e.target.tagName)) return;
    const step = 60 / unit(), moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (moves[e.key]) { cx += moves[e.key][0]; cy += moves[e.key][1]; draw(); }
    else if (e.key === "+" || e.key === "=") zoom(1.3);
    else if (e.key === "-") zoom(1 / 1.3);
    else if (e.key === "0") home();
    else if (e.key === "l" || e.key === "L") lassoMode(!drawing);
    else if (e.key === "/") $("search").focus();
    else return;
    e.preventDefault();
  });
  $("home").onclick = home; $("lasso").onclick = () => lassoMode(!drawing); $("search").oninput = search; $("clear").onclick = () => choose(null);
  $("export").onclick = () => {
    const rows = []; for (let i = 0; i < n; i++) if (chosen[i]) rows.push(ids[i]);
    const link = document.createElement("a"); link.href = URL.createObjectURL(new Blob([JSON.stringify(rows, null, 1) + "\n"], { type: "application/json" }));
    link.download = "ids.json"; link.click(); setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  for (const c of head.colors) { const option = document.createElement("option"); option.textContent = c.name; $("color").append(option); }
  $("color").onchange = () => { by = $("color").selectedIndex; off = new Set(); legend(); recolor(); };
  dark.onchange = () => { legend(); recolor(); };
  addEventListener("resize", resize);
  legend(); resize(); recolor(); say("Reading the texts ...");
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));  // the picture first
  try {
    const stream = new Blob([bytes($("rows").textContent)]).stream().pipeThrough(new DecompressionStream("gzip"));
    ({ ids, texts } = JSON.parse(await new Response(stream).text()));
    say(total()); document.body.dataset.ready = "1";
  } catch (error) { say(`The texts cannot be read by this browser: ${error.message}`); }
})();
