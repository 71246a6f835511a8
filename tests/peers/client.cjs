// Somebody else's HL7 client: node client.cjs <library> <port> [charset]
// Sends each message of standard input (JSON strings, a line each), prints {"ack": "<the answer>"} for each.
const [library, port, charset = 'utf-8'] = process.argv.slice(2);
const host = '127.0.0.1';
const say = (told) => process.stdout.write(JSON.stringify(told) + '\n');
const lines = require('node:fs').readFileSync(0, 'utf8').split('\n').filter(Boolean).map((one) => JSON.parse(one));

const libraries = {
  'simple-hl7': async () => {
    const hl7 = require('simple-hl7');
    const client = hl7.Server.createTcpClient(host, Number(port));
    const parser = new hl7.Parser();
    for (const line of lines) {
      const ack = await new Promise((done, fail) =>
        client.send(parser.parse(line), (error, answer) => (error ? fail(error) : done(answer))));
      say({ ack: ack.toString() });
    }
    client.close();
  },
  'hl7v2-net': async () => {
    const { Hl7Client } = require('hl7v2-net');
    const { HL7Message } = require('hl7v2');
    const client = Hl7Client.createClient({ host, port: Number(port) });
    await client.connect();
    for (const line of lines) {
      say({ ack: (await client.sendMessageWaitAck(HL7Message.parse(line))).toHL7String() });
    }
    await client.close();
  },
  medplum: async () => {
    const { Hl7Client } = require('@medplum/hl7');
    const { Hl7Message } = require('@medplum/core');
    const client = new Hl7Client({ host, port: Number(port), encoding: charset });
    for (const line of lines) {
      say({ ack: (await client.sendAndWait(Hl7Message.parse(line))).toString() });
    }
    await client.close();
  },
};
libraries[library]().then(() => process.exit(0));
