// What the page shows, and what changes it.

export * from "./store.js";
export * from "./edit.js";
export * from "./film.js";
export * from "./outside.js";
