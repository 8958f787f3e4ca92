// The code interpreter through @e2b/code-interpreter. SHORT: only what depends on how it is reached.
import { stripVTControlCharacters } from 'node:util'
import { Sandbox, NotFoundError } from '@e2b/code-interpreter'
import { assert, done, test, thrown } from './tap.mjs'

const short = !!process.env.SHORT
const sandbox = await Sandbox.create({ timeoutMs: 600_000, envs: { OF_SANDBOX: 'here' } })
const out = async (code, options) => (await sandbox.runCode(code, options)).logs.stdout.join('')

await test('the quick start', async () => {
  await sandbox.runCode('x = 1')
  const execution = await sandbox.runCode('x+=1; x')
  assert.equal(execution.text, '2')
  assert.equal(execution.executionCount, 2)
  assert.equal(execution.error, undefined)
  const files = await sandbox.files.list('/')
  assert.ok(files.some(f => f.name === 'home'))
})

await test('output as it comes, in order', async () => {
  const seen = []
  const at = Date.now()
  let first
  const execution = await sandbox.runCode(
    'import sys, time\nprint("one", flush=True)\ntime.sleep(1)\nprint("two", file=sys.stderr, flush=True)\ntime.sleep(0.5)\nprint("three")', {
      onStdout: o => { first ??= Date.now() - at; seen.push(['out', o.line]) },
      onStderr: o => seen.push(['err', o.line]),
    })
  assert.deepEqual(seen, [['out', 'one\n'], ['err', 'two\n'], ['out', 'three\n']])
  assert.deepEqual(execution.logs, { stdout: ['one\n', 'three\n'], stderr: ['two\n'] })
  assert.ok(first + 1000 <= Date.now() - at, 'the first line came before the end')
})

await test('an error has its traceback, and the state is kept', async () => {
  let told
  const { error, results } = await sandbox.runCode('kept = 5\ndef f():\n  return 1 / 0\nf()', { onError: e => { told = e } })
  assert.equal(error.name, 'ZeroDivisionError')
  assert.equal(error.value, 'division by zero')
  assert.match(stripVTControlCharacters(error.traceback), /return 1 \/ 0/)
  assert.equal(told, error)
  assert.deepEqual(results, [])
  assert.equal((await sandbox.runCode('kept')).text, '5')
})

await test('without the token nobody gets in', async () => {
  const url = process.env.E2B_SANDBOX_URL ?? `https://${sandbox.getHost(49999)}`
  const route = { 'E2b-Sandbox-Id': sandbox.sandboxId, 'E2b-Sandbox-Port': '49999' }
  const execute = headers => fetch(`${url}/execute`, { method: 'POST', body: '{"code": "1"}', headers: { ...route, ...headers } })
  const contexts = headers => fetch(`${url}/contexts`, { headers: { ...route, ...headers } })
  for (const token of [undefined, '', '0'.repeat(64), sandbox.envdAccessToken]) {
    for (const ask of [execute, contexts]) {
      const refused = await ask(token === undefined ? {} : { 'E2B-Traffic-Access-Token': token })
      assert.equal(refused.status, 403)
      await refused.body.cancel()
    }
  }
  const good = { 'E2B-Traffic-Access-Token': sandbox.trafficAccessToken }
  assert.match(await (await execute(good)).text(), /"text": "1"/)
  assert.equal((await contexts(good)).status, 200)
})

if (short) {
  await sandbox.kill()
  done()
}

const chart = async code => {
  const { results, error } = await sandbox.runCode(`import matplotlib.pyplot as plt\n${code}\nplt.show()`)
  assert.equal(error, undefined)
  assert.equal(results.length, 1)
  assert.equal(Buffer.from(results[0].png, 'base64').subarray(1, 4).toString(), 'PNG')
  return results[0].chart
}

await test('nothing is imported, and nothing is a chart, before the code says so', async () => {
  const { results } = await sandbox.runCode('import sys; [name for name in ("matplotlib", "pandas", "figures") if name in sys.modules]')
  assert.equal(results[0].text, '[]')
  assert.equal(results[0].chart, undefined)
  assert.equal((await sandbox.runCode('[name for name in dir() if "igure" in name]')).text, '[]')
})

await test('lines', async () => {
  const found = await chart(`fig, ax = plt.subplots()
ax.plot([1, 2, 3], [4, float("nan"), 6], label="one"); ax.plot([1, 3], [0, 1]); ax.axhline(2)
ax.set(title="Title", xlabel="Time (s)", ylabel="plain", yscale="symlog")`)
  const { x_ticks, x_tick_labels, y_ticks, y_tick_labels, ...rest } = found
  assert.deepEqual(rest, { type: 'line', title: 'Title', x_label: 'Time (s)', x_unit: 's', x_scale: 'linear', y_label: 'plain', y_unit: null, y_scale: 'symlog',
    elements: [{ label: 'one', points: [[1, 4], [2, null], [3, 6]] }, { label: '', points: [[1, 0], [3, 1]] }] })
  assert.ok(x_ticks.includes(2) && x_ticks.length === x_tick_labels.length && y_ticks.length === y_tick_labels.length)
  const dates = await chart('import datetime\nplt.plot([datetime.date(2024, 1, 1), datetime.date(2024, 1, 3)], [1, 2])')
  assert.equal(dates.x_scale, 'datetime')
  assert.deepEqual(dates.elements[0].points, [['2024-01-01', 1], ['2024-01-03', 2]])
  assert.match(dates.x_ticks[0], /^2024-01-01T/)
})

await test('points', async () => {
  const found = await chart('plt.scatter(["a", "b"], [1.5, 2.5], label="s")')
  assert.equal(found.type, 'scatter')
  assert.equal(found.x_scale, 'categorical')
  assert.deepEqual(found.elements, [{ label: 's', points: [['a', 1.5], ['b', 2.5]] }])
})

await test('bars', async () => {
  const upright = await chart('plt.bar(["a", "b"], [1, 2], label="low"); plt.bar(["a", "b"], [3, 4], bottom=[1, 2], label="high"); plt.ylabel("Height [m]")')
  assert.equal(upright.type, 'bar')
  assert.equal(upright.y_unit, 'm')
  assert.deepEqual(upright.elements, [{ label: 'a', group: 'low', value: 1 }, { label: 'b', group: 'low', value: 2 }, { label: 'a', group: 'high', value: 3 }, { label: 'b', group: 'high', value: 4 }])
  assert.deepEqual((await chart('plt.barh(["a", "b"], [1, 2])')).elements, [{ label: 'a', group: '', value: 1 }, { label: 'b', group: '', value: 2 }])
  const grouped = await chart('import pandas as pd\npd.DataFrame({"q": [1, 2], "r": [3, 4]}, index=["i", "j"]).plot.bar()')
  assert.deepEqual(grouped.elements.map(e => [e.label, e.group, e.value]), [['i', 'q', 1], ['j', 'q', 2], ['i', 'r', 3], ['j', 'r', 4]])
})

await test('a pie', async () => {
  assert.deepEqual(await chart('plt.pie([1, 3], labels=["a", "b"]); plt.title("P")'),
    { type: 'pie', title: 'P', elements: [{ label: 'a', angle: 90, radius: 1 }, { label: 'b', angle: 270, radius: 1 }] })
})

await test('boxes', async () => {
  const one = { min: 1, first_quartile: 2.25, median: 3.5, third_quartile: 4.75, max: 5, outliers: [20] }
  const flat = { min: 2, first_quartile: 2, median: 2, third_quartile: 2, max: 2, outliers: [] }
  for (const options of ['', ', patch_artist=True', ', vert=False', ', notch=True, showmeans=True']) {
    const found = await chart(`plt.boxplot([[1, 2, 3, 4, 5, 20], [2, 2]], labels=["one", "flat"]${options})`)
    assert.equal(found.type, 'box_and_whisker', options)
    assert.deepEqual(found.elements, [{ label: 'one', ...one }, { label: 'flat', ...flat }], options)
  }
})

await test('several plots, and what is none of these', async () => {
  const found = await chart('fig, axes = plt.subplots(1, 2); axes[0].plot([1, 2]); axes[1].pie([1]); fig.suptitle("Both")')
  assert.equal(found.type, 'superchart')
  assert.equal(found.title, 'Both')
  assert.deepEqual(found.elements.map(e => e.type), ['line', 'pie'])
  assert.deepEqual(await chart('plt.imshow([[1, 2]]); plt.colorbar()'), { type: 'unknown', title: '', elements: [] })
  assert.equal(await chart('plt.plot(range(100_001))'), undefined)
})

await test('the data of a table', async () => {
  const { results } = await sandbox.runCode(`import pandas as pd
pd.DataFrame({"n": [1, 2], "f": [0.5, float("nan")], "s": ["x", None], "t": pd.to_datetime(["2024-01-01", None]), ("a", "b"): [True, False]})`)
  assert.deepEqual(results[0].data, { n: [1, 2], f: [0.5, null], s: ['x', null], t: ['2024-01-01T00:00:00', null], "('a', 'b')": [true, false] })
  assert.match(results[0].html, /<table/)
  assert.equal((await sandbox.runCode('pd.DataFrame({"n": range(100_001)})')).results[0].data, undefined)
  const own = await sandbox.runCode('class Own:\n  def _repr_e2b_data_(self): return {"own": [1]}\nOwn()')
  assert.deepEqual(own.results[0].data, { own: [1] })
})

await test('results are what they are shown as', async () => {
  const { results } = await sandbox.runCode(`
from IPython.display import display, HTML, Markdown, SVG, JSON, Latex, Javascript, Image
import base64
display(HTML('<b>h</b>'), Markdown('*m*'), SVG('<svg xmlns="http://www.w3.org/2000/svg"/>'), JSON({'a': [1]}), Latex('$l$'), Javascript('j()'))
display(Image(data=base64.b64decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==')))
display({'application/x-own': 'own', 'text/plain': 'plain'}, raw=True)
'main'`)
  assert.deepEqual(results.map(r => r.formats().filter(f => !f.startsWith('is_'))), [['html'], ['markdown'], ['svg'], ['json'], ['latex'], ['javascript'], ['png'], ['application/x-own'], []])
  assert.equal(results[0].html, '<b>h</b>')
  assert.deepEqual(results[3].json, { a: [1] })
  const png = Buffer.from(results[6].png, 'base64')
  assert.equal(png.subarray(1, 4).toString(), 'PNG')
  assert.equal(results[7].extra['application/x-own'], 'own')
  assert.deepEqual(results.map(r => r.isMainResult), [false, false, false, false, false, false, false, false, true])
  assert.equal(results[8].text, 'main')
})

await test('JavaScript', async () => {
  const js = code => sandbox.runCode(code, { language: 'javascript' })
  const first = await js('const a = await Promise.resolve(20); let b = 2; console.log("out"); console.error("err"); ({ a, b })')
  assert.equal(first.text, '{ a: 20, b: 2 }')
  assert.deepEqual(first.logs, { stdout: ['out\n'], stderr: ['err\n'] })
  assert.equal((await js('a + b')).text, '22')
  assert.equal((await js('require("os").EOL === (await import("os")).EOL')).text, 'true')
  const { error } = await js('function f() { throw new TypeError("bad") }\nf()')
  assert.deepEqual([error.name, error.value], ['TypeError', 'bad'])
  assert.match(error.traceback, /cell:1/)
  assert.equal((await js('let (')).error.name, 'SyntaxError')
  const [shown] = (await js('({ [Symbol.for("Jupyter.display")]: () => ({ "text/html": "<i>" }) })')).results
  assert.equal(shown.html, '<i>')
})

await test('bash', async () => {
  const bash = code => sandbox.runCode(code, { language: 'bash' })
  const first = await bash('a=5; cd /tmp; f() { echo "f$1"; }; echo out; echo err >&2')
  assert.deepEqual(first.logs, { stdout: ['out\n'], stderr: ['err\n'] })
  assert.equal(first.error, undefined)
  assert.equal(await out('echo $a $PWD; f 1', { language: 'bash' }), '5 /tmp\nf1\n')
  const { error } = await bash('(exit 3)')
  assert.deepEqual([error.name, error.value], ['ExitStatus', '3'])
  assert.match((await bash('if; then')).logs.stderr.join(''), /syntax error/)
  assert.equal((await bash('exit 4')).error.name, 'Exited')
  assert.equal(await out('echo [$a]', { language: 'bash' }), '[]\n')
})

await test('environment: of the sandbox, and of one execution', async () => {
  for (const [language, code] of [['python', 'import os; print(os.environ.get("OF_SANDBOX"), os.environ.get("OF_CELL"))'],
    ['javascript', 'console.log(process.env.OF_SANDBOX, process.env.OF_CELL)'], ['bash', 'echo $OF_SANDBOX $OF_CELL']]) {
    assert.equal(await out(code, { language, envs: { OF_CELL: "it's" } }), "here it's\n")
    assert.match(await out(code, { language }), /^here( None| undefined)?\n$/)
  }
})

await test('contexts are apart, and each has its folder', async () => {
  const one = await sandbox.createCodeContext({ cwd: '/tmp' })
  const two = await sandbox.createCodeContext({ language: 'js', cwd: '/usr' })
  assert.deepEqual([one.language, one.cwd, two.language, two.cwd], ['python', '/tmp', 'javascript', '/usr'])
  const ids = (await sandbox.listCodeContexts()).map(c => c.id)
  assert.ok(ids.includes(one.id) && ids.includes(two.id))
  assert.equal(await out('import os; print(os.getcwd())', { context: one }), '/tmp\n')
  assert.equal(await out('console.log(process.cwd())', { context: two }), '/usr\n')
  await sandbox.runCode('mine = 1', { context: one })
  assert.equal((await sandbox.runCode('mine')).error.name, 'NameError')
  assert.equal((await sandbox.runCode('mine', { context: one })).text, '1')
  await sandbox.restartCodeContext(one)
  assert.equal((await sandbox.runCode('mine', { context: one })).error.name, 'NameError')
  await sandbox.removeCodeContext(one)
  await sandbox.removeCodeContext(two.id)
  assert.ok((await thrown(() => sandbox.runCode('1', { context: one }))).error instanceof NotFoundError)
  assert.ok((await thrown(() => sandbox.removeCodeContext(one))).error instanceof NotFoundError)
  assert.match((await thrown(() => sandbox.createCodeContext({ language: 'cobol' }))).message, /400/)
  assert.match((await thrown(() => sandbox.createCodeContext({ cwd: '/nowhere' }))).message, /400/)
})

await test('two contexts run at once; one does one thing after the other', async () => {
  const other = await sandbox.createCodeContext()
  await sandbox.runCode('import os, time')
  // Each waits for what the other does: this ends only if both run.
  const wait = (make, until) => `import os, time\nopen("/tmp/${make}", "w").close()\nwhile not os.path.exists("/tmp/${until}"): time.sleep(0.01)`
  await Promise.all([sandbox.runCode(wait('a', 'b')), sandbox.runCode(wait('b', 'a'), { context: other })])
  await sandbox.runCode('log = []')
  await Promise.all([sandbox.runCode('log.append(1); time.sleep(0.3); log.append(2)'), sandbox.runCode('log.append(3); time.sleep(0.3); log.append(4)')])
  assert.match((await sandbox.runCode('log')).text, /^\[(1, 2, 3, 4|3, 4, 1, 2)\]$/)
  await sandbox.removeCodeContext(other)
})

await test('a timeout interrupts, and the state is kept', async () => {
  for (const [language, code, look] of [
    ['python', 'import time\nfor i in range(10**9): time.sleep(0.01)', 'print(keep)'],
    ['javascript', 'await new Promise(resolve => setTimeout(resolve, 1e9))', 'console.log(keep)'],
    ['javascript', 'while (true);', 'console.log(keep)'],
    ['bash', 'while :; do sleep 1; done', 'echo $keep']]) {
    await sandbox.runCode(language === 'bash' ? 'keep=7' : 'keep = 7', { language })
    assert.equal((await thrown(() => sandbox.runCode(code, { language, timeoutMs: 500 }))).name, 'TimeoutError', code)
    assert.equal(await out(look, { language }), '7\n', code)
  }
})

await test('an interrupt is a KeyboardInterrupt', async () => {
  const url = process.env.E2B_SANDBOX_URL ?? `https://${sandbox.getHost(49999)}`
  const context = await sandbox.createCodeContext()
  const interrupt = () => fetch(`${url}/contexts/${context.id}/interrupt`, { method: 'POST', headers: {
    'E2b-Sandbox-Id': sandbox.sandboxId, 'E2b-Sandbox-Port': '49999', 'E2B-Traffic-Access-Token': sandbox.trafficAccessToken } })
  const { error } = await sandbox.runCode('import time\nprint("go", flush=True)\nwhile True: time.sleep(0.01)', { context, onStdout: interrupt })
  assert.equal(error.name, 'KeyboardInterrupt')
  await sandbox.removeCodeContext(context)
})

await test('a kernel that dies is another one afterwards', async () => {
  assert.equal((await sandbox.runCode('import os, signal; os.kill(os.getpid(), signal.SIGKILL)')).error.name, 'KernelDied')
  assert.equal((await sandbox.runCode('1 + 1')).text, '2')
})

await test('big output', async () => {
  for (const [language, code] of [['python', 'print("x" * 10_000_000)'], ['javascript', 'console.log("x".repeat(1e7))'],
    ['bash', 'head -c 10000000 /dev/zero | tr "\\0" x; echo']]) {
    const text = await out(code, { language })
    assert.equal(text.length, 10_000_001, language)
    assert.ok(/^x+\n$/.test(text), language)
  }
})

await test('a result that is too large is told, and the state is kept', async () => {
  const js = code => sandbox.runCode(code, { language: 'javascript' })
  await js('keep = 8')
  assert.equal((await js('"x".repeat(40_000_000)')).error.name, 'ResultTooLarge')
  assert.equal((await js('keep')).text, '8')
})

await test('a pause keeps the state', async () => {
  await sandbox.runCode('paused = 9')
  await sandbox.pause()
  const again = await Sandbox.connect(sandbox.sandboxId)
  assert.equal((await again.runCode('paused')).text, '9')
})

await test('a fork goes on with the state', async () => {
  const [copy] = (await sandbox.fork({ count: 1, timeoutMs: 60_000 })).map(f => f.sandbox ?? f)
  assert.equal((await copy.runCode('paused += 1; paused')).text, '10')
  assert.equal((await sandbox.runCode('paused')).text, '9')
  await copy.kill()
})

await sandbox.kill()
done()
