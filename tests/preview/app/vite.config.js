// Beside Vite's own websocket, a stream of events.
const events = {
  name: "events",
  configureServer(server) {
    server.middlewares.use("/events", (request, response) => {
      response.writeHead(200, { "Content-Type": "text/event-stream" });
      let n = 0;
      const timer = setInterval(() => response.write(`data: event ${++n}\n\n`), 100);
      request.on("close", () => clearInterval(timer));
    });
  },
};
export default { plugins: [events], clearScreen: false };
