// Keeps the latest result of each patient, even after a restart.
//
//   npm ci
//   node reader.mjs --bootstrap-servers kafka-1:9092
//
// Reads the results of the last hours, then follows the topic. Prints results exactly as they are on the topic, one a line: first
// the latest of each patient, then every newer one.

import { randomUUID } from 'node:crypto'
import { parseArgs } from 'node:util'
import { Kafka, logLevel } from 'kafkajs'

const { values: options } = parseArgs({
  options: {
    'bootstrap-servers': { type: 'string', default: 'localhost:9092' },
    topic: { type: 'string', default: 'risk' },
    hours: { type: 'string', default: '24' }, // how far back to begin
    once: { type: 'boolean', default: false }, // end when the latest results are printed
  },
})

// The latest result by patient: the one with the newest event_time. Usually that is also the last one on the topic, but not if
// dead letters were replayed: then old readings are scored late.
const latest = new Map()

function isNewer(value) {
  const { patient_id: patient, event_time: eventTime } = JSON.parse(value)
  const time = Date.parse(eventTime)
  if (latest.has(patient) && time < latest.get(patient).time) return false
  latest.set(patient, { time, value })
  return true
}

// By partition, where to begin and where the topic ended at the start.
async function rangesToRead(kafka, topic, since) {
  const admin = kafka.admin()
  await admin.connect()
  try {
    const starts = await admin.fetchTopicOffsetsByTimestamp(topic, since)
    const ends = await admin.fetchTopicOffsets(topic)
    const endOf = new Map(ends.map(({ partition, high }) => [partition, BigInt(high)]))
    return starts.map(({ partition, offset }) => ({ partition, offset, end: endOf.get(partition) }))
  } finally {
    await admin.disconnect()
  }
}

const kafka = new Kafka({
  brokers: options['bootstrap-servers'].split(','),
  logLevel: logLevel.WARN,
  logCreator: () => ({ log }) => console.error(log.message),
  // For TLS: ssl: { ca: [readFileSync('ca.pem')] }.
})
const consumer = kafka.consumer({
  // A group of its own, and no offset is committed: each start reads the last hours again, and several readers see everything.
  groupId: `risk-reader-${randomUUID()}`,
  // Only committed transactions, which is the default. Otherwise a reader sees aborted results, which come again later.
  readUncommitted: false,
  maxWaitTimeInMs: 500, // a stop waits for a fetch to end
})
const ranges = await rangesToRead(kafka, options.topic, Date.now() - Number(options.hours) * 3_600_000)
const unread = new Map(ranges.filter(({ offset, end }) => BigInt(offset) < end).map(({ partition, end }) => [partition, end]))
let caughtUp = false

function checkCaughtUp() {
  if (caughtUp || unread.size > 0) return
  caughtUp = true
  for (const { value } of latest.values()) console.log(value)
  if (options.once) stop()
}

// Not called for a batch that contains only transaction markers; END_BATCH_PROCESS reports those.
async function eachBatch({ batch }) {
  for (const message of batch.messages) {
    const value = message.value.toString()
    if (isNewer(value) && caughtUp) console.log(value)
  }
}

function stop() {
  // Leaves the group, so that the brokers forget it.
  consumer.disconnect().then(() => process.exit(0))
}

consumer.on(consumer.events.END_BATCH_PROCESS, ({ payload: { partition, lastOffset } }) => {
  if (BigInt(lastOffset) + 1n >= (unread.get(partition) ?? Infinity)) unread.delete(partition)
  checkCaughtUp()
})
consumer.on(consumer.events.CRASH, ({ payload: { error, restart } }) => {
  console.error(error.message)
  if (!restart) process.exit(1)
})
for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, stop)

await consumer.connect()
await consumer.subscribe({ topic: options.topic, fromBeginning: true })
await consumer.run({ autoCommit: false, partitionsConsumedConcurrently: 1, eachBatch })
for (const { partition, offset } of ranges) consumer.seek({ topic: options.topic, partition, offset })
checkCaughtUp()
