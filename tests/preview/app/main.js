import { greeting } from "./greeting.js";

const show = (text) => { document.querySelector("#hello").textContent = text; };
show(greeting);
import.meta.hot?.accept("./greeting.js", (module) => show(module.greeting));
new EventSource("/events").onmessage = (event) => { document.querySelector("#ticks").textContent = event.data; };
