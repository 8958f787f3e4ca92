"""A shell on a terminal, with an editor and job control, on its way through the disk: what was typed before and after makes one text."""
import grpc
from criu import needs_criu
from lab import Case, through_disk


@needs_criu
class Terminal(Case):
    def start(self, box):
        self.events = self.client.Processes.Start(sandbox_id=box, argv=["bash", "--norc", "--noprofile"], deadline=40, cwd="/home/user",
                                                  env={"PS1": "<prompt>", "TERM": "xterm"}, terminal={"columns": 80, "rows": 24})
        self.box, self.shell, self.screen = box, next(self.events).started.process_id, b""

    def type(self, text, wanted):
        """Type it, and read the screen until this comes behind what was there."""
        before = len(self.screen)
        self.client.Processes.SendInput(sandbox_id=self.box, process_id=self.shell, data=text)
        try:
            while wanted not in self.screen[before:]:
                self.screen += next(self.events).output.data
        except (StopIteration, grpc.RpcError):
            self.fail(f"{wanted!r} did not come: {self.screen[before:]!r}")

    def session(self, away):
        self.start(self.new())
        self.type(b"export KEPT=$((6*7)); cd /tmp\r", b"<prompt>")
        self.type(b"sleep 1000 & sleep 2000 &\r", b"<prompt>")
        self.type(b"vim.tiny -u NONE -N note\r", b"[New]")
        self.type(b"ione\x1b", b"one")
        away()
        self.type(b"otwo\x1b", b"two")
        self.type(b"\x1a", b"Stopped")
        self.type(b"jobs | wc -l; echo $KEPT-$PWD\r", b"42-/tmp\r\n")
        away()
        self.type(b"fg %3\r", b"two")
        self.type(b"othree\x1b:wq\r", b"<prompt>")
        self.type(b"jobs\r", b"sleep 2000 &")
        self.type(b"kill %1 %2; wait; jobs | wc -l\r", b"0\r\n")
        self.type(b"fg\r", b"no such job")
        self.type(b"cat\r", b"cat\r\n")
        away()
        self.type(b"typed\r", b"typed\r\ntyped\r\n")
        self.type(b"\x03", b"^C")
        self.type(b"stty size; tty; exit 5\r", b"exit\r\n")
        self.assertEqual(self.client.Processes.Wait(sandbox_id=self.box, process_id=self.shell).exit_code, 5)
        self.assertIn(b"24 80\r\n/dev/pts/", self.screen)
        return self.sh(self.box, "cat /tmp/note")

    def test_bash_vim_and_jobs(self):
        self.assertEqual(self.session(lambda: None), b"one\ntwo\nthree\n", "the undisturbed twin")
        self.assertEqual(self.session(lambda: through_disk(self.client, self.box)), b"one\ntwo\nthree\n")
