// The code interpreter of novita-sandbox, which is reached by name.
import { Sandbox } from 'novita-sandbox/code-interpreter'
import { assert, done, test } from './tap.mjs'

const sandbox = await Sandbox.create('code-interpreter-v1', { timeoutMs: 120_000 })

await test('runCode', async () => {
  await sandbox.runCode('x = 20')
  assert.equal((await sandbox.runCode('x + 1')).text, '21')
  assert.deepEqual((await sandbox.runCode('console.log(1)', { language: 'js' })).logs.stdout, ['1\n'])
})

await sandbox.kill()
done()
