"use strict";
/* The map that can be moved, and tables that can be sorted; without this script the page shows all but the motion. */
(() => {
  document.documentElement.classList.add("js");
  const data = JSON.parse(document.getElementById("data").textContent);
  sortableTables();
  const canvas = document.createElement("canvas");
  const frame = document.querySelector(".map"), svg = frame.querySelector("svg");
  const tip = frame.querySelector(".tip");
  const pen = canvas.getContext("2d");
  if (!pen || !window.Path2D) { document.documentElement.classList.remove("js"); return; }
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", svg.getAttribute("aria-label") + ". Arrow keys move it, plus and minus zoom.");
  frame.insertBefore(canvas, frame.querySelector(".zoom"));

  /* --- Equal Earth, as in world.py ------------------------------------------------------------------------- */
  const W = 1000, H = 486.7, S = W / (2 * 2.7066299836);
  const A1 = 1.340264, A2 = -0.081106, A3 = 0.000893, A4 = 0.003796, M = Math.sqrt(3) / 2;
  function project(lon, lat) {
    const t = Math.asin(M * Math.sin(lat * Math.PI / 180)), t2 = t * t, t6 = t2 * t2 * t2;
    const x = 4 * M * lon * Math.PI / 180 * Math.cos(t) / (3 * (9 * A4 * t6 * t2 + 7 * A3 * t6 + 3 * A2 * t2 + A1));
    const y = t * (A4 * t6 * t2 + A3 * t6 + A2 * t2 + A1);
    return [W / 2 + x * S, H / 2 - y * S];
  }
  function edge(path, lon0, lat0, lon1, lat1) {  // meridians are curves
    const n = Math.max(1, Math.ceil(Math.abs(lat1 - lat0) / 5));
    for (let i = 1; i <= n; i++) path.lineTo(...project(lon0 + (lon1 - lon0) * i / n, lat0 + (lat1 - lat0) * i / n));
  }

  /* --- what is drawn --------------------------------------------------------------------------------------- */
  const world = Object.fromEntries(["sphere", "lines", "land", "borders"].map(
    (name) => [name, new Path2D(document.getElementById(name).getAttribute("d"))]));
  let lastId = "", lastKey = "", lastPicture = "";
  const shapes = data.items.map((row) => {
    const [collection, day, amount, rings, sameId, id, asset, sameKey, key, samePicture, picture] = row;
    lastId = lastId.slice(0, sameId) + id;
    lastKey = lastKey.slice(0, sameKey) + key;
    lastPicture = lastPicture.slice(0, samePicture) + picture;
    const path = new Path2D(), box = [Infinity, Infinity, -Infinity, -Infinity], corners = [];
    let area = 0;
    for (const steps of rings) {
      const ring = [];
      let lon = 0, lat = 0;
      for (let i = 0; i < steps.length; i += 2) ring.push([(lon += steps[i]) / 1e4, (lat += steps[i + 1]) / 1e4]);
      const flat = ring.map((point) => project(...point));
      path.moveTo(...flat[0]);
      ring.forEach((point, i) => edge(path, ...point, ...ring[(i + 1) % ring.length]));
      path.closePath();
      let sum = 0;
      flat.forEach(([x, y], i) => {
        box[0] = Math.min(box[0], x); box[1] = Math.min(box[1], y);
        box[2] = Math.max(box[2], x); box[3] = Math.max(box[3], y);
        const [u, v] = flat[(i + 1) % flat.length];
        sum += x * v - u * y;
      });
      area += Math.abs(sum) / 2;
      corners.push(flat);
    }
    const boxes = corners.map((ring) => ring.reduce(
      (b, [x, y]) => [Math.min(b[0], x), Math.min(b[1], y), Math.max(b[2], x), Math.max(b[3], y)],
      [Infinity, Infinity, -Infinity, -Infinity]));
    const spread = (b) => (b[2] - b[0]) * (b[3] - b[1]), main = boxes.reduce((a, b) => spread(b) > spread(a) ? b : a);
    return {
      colour: data.collections[collection][1], collection: data.collections[collection][0], id: lastId, day, amount,
      partition: asset ? [asset, lastKey] : null, thumbnail: lastPicture, path, box, area, x: (main[0] + main[2]) / 2, y: (main[1] + main[3]) / 2,
    };
  }).sort((a, b) => b.area - a.area);
  const cells = new Map();
  for (const [collection, column, row, items] of data.cells) {
    const key = column + "," + row;
    if (!cells.has(key)) {
      const west = column * data.cell - 180, south = row * data.cell - 90, path = new Path2D();
      const north = south + data.cell, east = west + data.cell;
      path.moveTo(...project(west, south));
      edge(path, west, south, west, north); edge(path, west, north, east, north);
      edge(path, east, north, east, south); path.closePath();
      cells.set(key, { path, counts: [], where: project(west + data.cell / 2, south + data.cell / 2) });
    }
    cells.get(key).counts.push([collection, items]);
  }
  const hidden = new Set();
  let colours = [];
  function readColours() {
    const style = getComputedStyle(document.documentElement);
    colours = Array.from({ length: 10 }, (_, i) => style.getPropertyValue("--c" + i).trim());
    colours.of = (name) => style.getPropertyValue("--" + name).trim();
  }

  /* --- view ------------------------------------------------------------------------------------------------ */
  const view = { k: 1, x: 0, y: 0 };  // screen = (map * k + offset) * scale
  let scale = 1, ratio = 1, wanted = false, over = null;
  function resize() {
    const box = frame.getBoundingClientRect();
    if (!box.width) return;
    ratio = window.devicePixelRatio || 1;
    scale = box.width / W;
    canvas.width = Math.round(box.width * ratio);
    canvas.height = Math.round(box.width * H / W * ratio);
    draw();
  }
  function draw() {
    if (wanted) return;
    wanted = true;
    requestAnimationFrame(() => { wanted = false; paint(); });
  }
  function paint() {
    const k = view.k * scale * ratio, px = 1 / (view.k * scale);  // px: a pixel of the screen in units of the map
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.setTransform(k, 0, 0, k, view.x * scale * ratio, view.y * scale * ratio);
    pen.lineJoin = "round";
    pen.fillStyle = colours.of("sea"); pen.fill(world.sphere);
    pen.lineWidth = px; pen.strokeStyle = colours.of("grid"); pen.stroke(world.lines);
    pen.fillStyle = colours.of("land"); pen.fill(world.land);
    pen.strokeStyle = colours.of("border"); pen.stroke(world.borders);
    paintCells();
    const seen = visible();
    const small = 3 * px;
    const many = seen.length > 3000;
    for (const shape of seen) {
      if (shape.box[2] - shape.box[0] < small && shape.box[3] - shape.box[1] < small) continue;
      pen.fillStyle = pen.strokeStyle = colours[shape.colour];
      // the larger, the paler: what covers half the world would only tint it
      pen.globalAlpha = many ? 0.1 : Math.max(0.04, 0.27 - 0.045 * Math.log10(1 + shape.area));
      pen.fill(shape.path, "evenodd");
      pen.globalAlpha = many ? 0.5 : 0.9;
      pen.lineWidth = (many ? 0.7 : 1.2) * px;
      pen.stroke(shape.path);
    }
    const side = (many ? 3 : 5) * px;
    pen.globalAlpha = 0.9;
    for (const shape of seen) {
      if (shape.box[2] - shape.box[0] >= small || shape.box[3] - shape.box[1] >= small) continue;
      pen.fillStyle = colours[shape.colour];
      if (many) { pen.fillRect(shape.x - side / 2, shape.y - side / 2, side, side); continue; }
      pen.beginPath(); pen.arc(shape.x, shape.y, side / 1.6, 0, 7); pen.fill();
      pen.strokeStyle = colours.of("card"); pen.lineWidth = px; pen.stroke();
    }
    pen.globalAlpha = 1;
    if (over && over.path) {
      pen.strokeStyle = colours.of("ink"); pen.lineWidth = 2.5 * px; pen.stroke(over.path);
      if (over.x !== undefined) { pen.beginPath(); pen.arc(over.x, over.y, 7 * px, 0, 7); pen.stroke(); }
    }
  }
  function shownCounts(cell) {
    return cell.counts.filter(([collection]) => !hidden.has(data.collections[collection][1]));
  }
  function paintCells() {
    let most = 1;
    for (const cell of cells.values()) {
      cell.shown = shownCounts(cell);
      cell.sum = cell.shown.reduce((sum, [, items]) => sum + items, 0);
      most = Math.max(most, cell.sum);
    }
    for (const cell of cells.values()) {
      if (!cell.sum) continue;
      const top = cell.shown.reduce((a, b) => b[1] > a[1] ? b : a);
      pen.fillStyle = top[1] * 2 > cell.sum ? colours[data.collections[top[0]][1]] : colours.of("mixed");
      pen.globalAlpha = 0.15 + 0.8 * Math.log1p(cell.sum) / Math.log1p(most);
      pen.fill(cell.path);
    }
    pen.globalAlpha = 1;
  }
  function visible() {
    const west = -view.x / view.k, north = -view.y / view.k, east = west + W / view.k, south = north + H / view.k;
    if (cells.size && view.k < 2.5) return [];  // over so many counts they would be confetti
    return shapes.filter((one) => !hidden.has(one.colour)
      && one.box[2] >= west && one.box[0] <= east && one.box[3] >= north && one.box[1] <= south);
  }

  /* --- moving ---------------------------------------------------------------------------------------------- */
  function zoom(factor, x, y) {
    const k = Math.min(20000, Math.max(1, view.k * factor)), f = k / view.k;
    view.x = x - (x - view.x) * f; view.y = y - (y - view.y) * f; view.k = k;
    move(0, 0);
  }
  function move(dx, dy) {
    view.x = Math.min(0, Math.max(W - W * view.k, view.x + dx));
    view.y = Math.min(0, Math.max(H - H * view.k, view.y + dy));
    canvas.style.touchAction = view.k > 1 ? "none" : "pan-y";
    unpin(); draw();
  }
  function whole() { view.k = 1; view.x = view.y = 0; move(0, 0); }
  function at(event) {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / scale, (event.clientY - box.top) / scale];
  }
  const fingers = new Map();
  let spread = 0, dragged = 0;
  canvas.addEventListener("wheel", (event) => {
    // a page that is scrolled by must not be held up by the map
    if (!event.ctrlKey && !event.metaKey && document.activeElement !== canvas) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / (event.deltaMode ? 20 : 400)), ...at(event));
  }, { passive: false });
  canvas.addEventListener("dblclick", (event) => zoom(2.5, ...at(event)));
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, at(event)); spread = 0;
    if (fingers.size === 1) dragged = 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    const now = at(event), before = fingers.get(event.pointerId);
    if (!before) { if (!pinned()) show(now, false); return; }
    fingers.set(event.pointerId, now);
    if (fingers.size === 2) {
      const [[x0, y0], [x1, y1]] = [...fingers.values()], gap = Math.hypot(x1 - x0, y1 - y0);
      if (spread) zoom(gap / spread, (x0 + x1) / 2, (y0 + y1) / 2);
      spread = gap; dragged = 99;
      return;
    }
    const dx = now[0] - before[0], dy = now[1] - before[1];
    dragged += Math.hypot(dx, dy) * scale;
    if (dragged > 4 && view.k > 1) { canvas.classList.add("moving"); move(dx, dy); }
  });
  const release = (event) => {
    if (fingers.delete(event.pointerId) && event.type === "pointerup" && dragged <= 4) show(at(event), true);
    canvas.classList.remove("moving");
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", () => { if (!pinned()) clear(); });
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (steps[event.key]) { if (view.k === 1) return; move(...steps[event.key]); }
    else if (event.key === "+" || event.key === "=") zoom(1.6, W / 2, H / 2);
    else if (event.key === "-") zoom(1 / 1.6, W / 2, H / 2);
    else if (event.key === "0" || event.key === "Escape") whole();
    else return;
    event.preventDefault();
  });
  const [closer, farther, all] = frame.querySelectorAll(".zoom button");
  closer.onclick = () => zoom(1.6, W / 2, H / 2);
  farther.onclick = () => zoom(1 / 1.6, W / 2, H / 2);
  all.onclick = whole;
  for (const box of document.querySelectorAll("fieldset input")) {
    box.onchange = () => {
      if (box.checked) hidden.delete(+box.value); else hidden.add(+box.value);
      unpin(); draw();
    };
  }

  /* --- what is under the pointer --------------------------------------------------------------------------- */
  function under([x, y]) {
    const mx = (x - view.x) / view.k, my = (y - view.y) / view.k, reach = 6 / (view.k * scale);
    const found = [], looked = cells.size && view.k < 2.5 ? 0 : shapes.length;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    for (let i = looked - 1; i >= 0; i--) {  // the smallest first
      const one = shapes[i], [west, north, east, south] = one.box;
      if (hidden.has(one.colour) || mx < west - reach || mx > east + reach || my < north - reach || my > south + reach) continue;
      const tiny = east - west < 2 * reach && south - north < 2 * reach;
      if (tiny || pen.isPointInPath(one.path, mx, my, "evenodd")) found.push(one);
    }
    if (found.length) return found;
    for (const cell of cells.values()) if (cell.sum && pen.isPointInPath(cell.path, mx, my)) return [cell];
    return found;
  }
  const pinned = () => tip.classList.contains("pinned");
  function unpin() { tip.classList.remove("pinned"); clear(); }
  function clear() { tip.style.display = "none"; if (over) { over = null; draw(); } }
  function show(where, pin) {
    const found = under(where);
    tip.classList.toggle("pinned", pin && found.length > 0);
    if (!found.length) { clear(); return; }
    over = found[0];
    const most = pin ? 6 : 3;
    tip.replaceChildren(...found.slice(0, most).map(entry));
    if (found.length > most) tip.append(element("div", (found.length - most) + " more here"));
    if (!pin && !cells.has(over)) tip.append(element("div", "Click for links"));
    tip.style.display = "block";
    const box = frame.getBoundingClientRect(), x = where[0] * scale, y = where[1] * scale;
    tip.style.maxHeight = box.height - 8 + "px";
    tip.style.left = Math.max(4, Math.min(x + 14, box.width - tip.offsetWidth - 8)) + "px";
    const below = y + 16, above = y - tip.offsetHeight - 12;
    tip.style.top = (below + tip.offsetHeight > box.height - 4 && above > 0 ? above : Math.max(4, Math.min(below, box.height - tip.offsetHeight - 4))) + "px";
    draw();
  }
  function entry(one) {
    const said = element("div");
    if (one.counts) {
      said.append(element("b", one.sum.toLocaleString("en").replaceAll(",", "\u202f") + " items"));
      for (const [collection, items] of one.shown.slice(0, 6)) said.append(element("span", data.collections[collection][0] + ": " + items), document.createElement("br"));
      return said;
    }
    said.append(element("b", one.id), element("span", [one.collection, one.day, one.amount].filter(Boolean).join(" · ")));
    const links = element("span");
    if (data.ui && one.partition) {
      const [asset, key] = one.partition;
      links.append(link(data.ui.replace(/\/+$/, "") + "/assets/" + encodeURIComponent(asset) + "?view=partitions&partition=" + encodeURIComponent(key), "In Dagster"));
    }
    if (one.thumbnail) links.append(link(one.thumbnail, "Picture"));
    if (links.childNodes.length && pinned()) said.append(document.createElement("br"), links);
    return said;
  }
  function element(name, content) {
    const made = document.createElement(name);
    if (content !== undefined) made.textContent = content;
    return made;
  }
  function link(address, label) {
    const made = element("a", label);
    if (/^(https?|file):/i.test(address)) made.href = address;
    made.target = "_blank"; made.rel = "noopener noreferrer";
    return made;
  }

  const redo = () => { readColours(); draw(); };
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redo);
  new ResizeObserver(resize).observe(frame);
  readColours(); resize();

  /* --- tables ---------------------------------------------------------------------------------------------- */
  function sortableTables() {
    for (const table of document.querySelectorAll("table.sortable")) {
      const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
      if (body.rows.length < 2) continue;
      heads.forEach((head, column) => {
        const button = document.createElement("button");
        button.type = "button"; button.textContent = head.textContent;
        head.replaceChildren(button);
        const numeric = head.classList.contains("n");
        button.onclick = () => {
          const up = head.getAttribute("aria-sort") === (numeric ? "descending" : "ascending") ? numeric : !numeric;
          for (const other of heads) other.removeAttribute("aria-sort");
          head.setAttribute("aria-sort", up ? "ascending" : "descending");
          const value = (row) => row.cells[column].dataset.v;
          const compare = numeric ? (a, b) => value(a) - value(b) : (a, b) => value(a).localeCompare(value(b), "en", { numeric: true });
          body.append(...[...body.rows].sort((a, b) => up ? compare(a, b) : compare(b, a)));
        };
      });
    }
  }
})();
