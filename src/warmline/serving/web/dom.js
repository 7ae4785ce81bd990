// Elements. Whatever is written enters them as text.

/** The element with this id. */
export const at = (id) => document.getElementById(id);

/** A fresh copy of the element inside `<template id=...>`. */
export function copy(id) {
  return at(id).content.firstElementChild.cloneNode(true);
}

/** A new element: `make("p", { className: "quiet" }, "some text", another)`. */
export function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}
