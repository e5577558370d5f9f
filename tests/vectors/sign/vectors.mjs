// Writes request vectors, as vectors.py does: the folder's README says what a vector is.

import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
export const PUBLIC_URL = "https://hooks.example.com";

/** The request's path as the vector has it, and the URL that the sender signed. */
export function path(provider, name, query = "") {
  const own = `/hooks/${provider}-test` + (query ? `?${query}` : "");
  return [own, `${PUBLIC_URL}/${provider}/${name}${own}`];
}

/** A body, a Buffer, as a vector has it. */
export function body(raw) {
  try {
    return { body: new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(raw) };
  } catch {
    return { body_base64: Buffer.from(raw).toString("base64") };
  }
}

/** Writes `vectors`, an object by name, as one theme of a provider. */
export function write(provider, theme, vectors) {
  const folder = join(ROOT, provider);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, `${theme}.json`), JSON.stringify(vectors, null, 1) + "\n");
}
