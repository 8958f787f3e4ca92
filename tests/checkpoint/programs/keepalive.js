// An HTTP server and a client with four connections that stay open, both in this process's sandbox. The server says on which
// connection a request came; the client counts the requests of each: nobody ever connects a fifth time.
const http = require('http');
const crypto = require('crypto');
let connections = 0;
const server = http.createServer((request, response) => {
  const body = crypto.createHash('sha256').update(request.url).digest('hex').repeat(200);
  setTimeout(() => response.end(body), 1);
});
server.keepAliveTimeout = 600000;
server.on('connection', (socket) => { socket.number = ++connections; });
const agent = new http.Agent({ keepAlive: true, maxSockets: 4 });
const total = crypto.createHash('sha256');
const answers = [];
let next = 0, ended = 0, written = 0;
const REQUESTS = 800;

function ask() {
  const number = next++;
  if (number >= REQUESTS) return;
  http.get({ host: '127.0.0.1', port: server.address().port, agent, path: `/${number}` }, (response) => {
    const parts = [];
    response.on('data', (part) => parts.push(part));
    response.on('end', () => {
      answers[number] = Buffer.concat(parts);
      while (answers[written]) {
        total.update(answers[written]);
        answers[written++] = null;
        if (written % 100 === 0) console.log(`@${written / 100 - 1}`);
        if (written === REQUESTS) {
          console.log(`${total.digest('hex')} over ${connections} connections`);
          process.exit(0);
        }
      }
      ask();
    });
  }).on('error', (error) => { console.log(`error ${error.message}`); process.exit(1); });
}

server.listen(0, '127.0.0.1', () => { for (let i = 0; i < 4; i++) ask(); });
