// Somebody else's HL7 server: node server.cjs <library> [charset] [enhanced]
// Prints {"port": N}, then {"got": "<message as text>"} for each message that it understood.
const net = require('node:net');
const [library, charset = 'utf-8', mode = ''] = process.argv.slice(2);
const say = (told) => process.stdout.write(JSON.stringify(told) + '\n');

// These libraries listen on all interfaces: here on this machine alone, and on any free port.
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (...given) {
  const ready = given.find((one) => typeof one === 'function');
  this.once('listening', () => say({ port: this.address().port }));
  return listen.call(this, { port: 0, host: '127.0.0.1' }, ready);
};

const libraries = {
  'simple-hl7': () => {
    const app = require('simple-hl7').tcp();
    app.use((req, res, next) => {
      say({ got: req.msg.toString() });
      next();
    });
    app.use((req, res) => res.end());
    app.start(2575);
  },
  'hl7v2-net': () => {
    const server = require('hl7v2-net').HL7Server.createServer();
    server.use(async (req) => say({ got: req.message.toHL7String() }));
    server.listen(2575);
  },
  medplum: () => {
    const { Hl7Server } = require('@medplum/hl7');
    const server = new Hl7Server((connection) => {
      connection.addEventListener('message', ({ message }) => {
        say({ got: message.toString() });
        if (mode === 'enhanced') connection.send(message.buildAck({ ackCode: 'CA' }));
        connection.send(message.buildAck());
      });
    });
    server.start(2575, charset);
  },
  'node-hl7-server': () => {
    const { Server } = require('node-hl7-server');
    new Server({ bindAddress: '127.0.0.1' }).createInbound({ port: 2575 }, async (req, res) => {
      say({ got: req.getMessage().toString() });
      await res.sendResponse('AA');
    });
  },
};
libraries[library]();
