// A page that was opened as a file may start no worker, in which the theme's search runs. There
// the worker's script runs in a hidden frame of the same page instead.
"use strict";
if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.title = "search";
      frame.setAttribute("aria-hidden", "true");
      frame.addEventListener("load", () => {
        const inside = frame.contentWindow;
        if (this.inside || inside.location.href === "about:blank") return;
        inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
        inside.importScripts = () => {};
        const script = inside.document.createElement("script");
        script.src = new URL(url, location.href).href;
        script.addEventListener("load", () => {
          this.inside = inside;
          for (const data of this.waiting.splice(0)) this.postMessage(data);
        });
        inside.document.body.append(script);
      });
      frame.srcdoc = "<!doctype html><html lang=en><title>search</title><body></body></html>";
      document.body.append(frame);
    }
    postMessage(data) {
      if (this.inside) this.inside.dispatchEvent(new this.inside.MessageEvent("message", { data }));
      else this.waiting.push(data);
    }
    terminate() {}
  };
}
