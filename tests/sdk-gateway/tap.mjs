// A line per test, as tests/run.sh counts them: ok NAME, FAIL NAME: why.
import assert from 'node:assert/strict'

export { assert }
const prefix = process.env.PREFIX ?? 'sdk'
let failed = 0

export async function test(name, body) {
  try {
    await Promise.race([body(), new Promise((_, reject) => setTimeout(reject, 60000, new Error('no end within 60 s')).unref())])
    console.log(`ok ${prefix}/${name}`)
  } catch (error) {
    failed++
    console.log(`FAIL ${prefix}/${name}: ${String(error?.stack ?? error).replace(/\s+/g, ' ').slice(0, 280)}`)
  }
}

// The class of error that a call throws, and its message.
export async function thrown(call) {
  try {
    const value = await call()
    return { name: 'nothing', message: `returned ${JSON.stringify(value)}` }
  } catch (error) {
    return { name: error?.constructor?.name ?? String(error), message: String(error?.message ?? error), error }
  }
}

export const done = () => process.exit(failed ? 1 : 0)
