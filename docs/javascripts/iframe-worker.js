// Browsers start no worker for a page that is a file: there, the search runs in a hidden frame instead.
// Material's `offline` plugin would load a script of this name from another host, if it found none here.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      frame.receive = data => this.dispatchEvent(new MessageEvent("message", { data }))
      frame.srcdoc =
        `<script>postMessage = data => frameElement.receive(data)</script><script src="${url}"></script>`
      this.started = new Promise(resolve => {
        frame.onload = () => resolve(frame.contentWindow)
      })
      document.body.append(frame)
    }

    async postMessage(data) {
      (await this.started).dispatchEvent(new MessageEvent("message", { data }))
    }
  }
}
