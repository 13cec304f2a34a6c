/**
 * The service worker of the page: the page works without a connection once it has been loaded. With a connection, files
 * always come from the host, so that no old version is shown.
 */

const CACHE = "lenet5-page";
const FILES = [
  "./",
  "style.css",
  "app.js",
  "readers.js",
  "pictures.js",
  "corrections.js",
  "zip.js",
  "worker.js",
  "lenet5/index.js",
  "lenet5/lenet5.js",
  "lenet5/lenet5.wasm.gz",
];
const URLS = new Set(FILES.map((file) => new URL(file, registration.scope).href));

addEventListener("install", (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FILES)));
  skipWaiting();
});

addEventListener("activate", (event) => event.waitUntil(clients.claim()));

addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method === "GET" && URLS.has(request.url)) event.respondWith(newest(request));
});

/** The file from the host, which is stored; without a connection the stored one. */
async function newest(request) {
  const cache = await caches.open(CACHE);
  try {
    const response = await fetch(request);
    if (response.ok) await cache.put(request, response.clone());
    return response;
  } catch (error) {
    const stored = await cache.match(request);
    if (stored) return stored;
    throw error;
  }
}
