"""Access tokens: one sandbox for somebody who has no API key; and keys in the spelling of the hosted-sandbox SDKs."""
from api import Case, Code, grpc, unique
from paddock import all_methods
from test_auth import empty_requests

# What a token opens, of its own sandbox. Every other method is refused.
OPENED = {"/paddock.v1.Sandboxes/Get", "/paddock.v1.Sandboxes/GetUsage", "/paddock.v1.Sandboxes/GetMetrics", "/paddock.v1.Previews/ListPorts"} | {
    path for path in all_methods() if path.startswith(("/paddock.v1.Processes/", "/paddock.v1.Files/", "/process.Process/", "/filesystem.Filesystem/"))}


def metadata(box, token):
    return [("e2b-sandbox-id", box), ("x-access-token", token)]


class AccessToken(Case):
    def setUp(self):
        super().setUp()
        self.token = self.client.Sandboxes.GetAccess(sandbox_id=self.box).access_token
        self.bearer = self.instance.client()

    def run_with(self, credentials, sandbox=None):
        return list(self.bearer.Processes.Start(sandbox_id=sandbox or self.box, argv=["/bin/true"], grpc_metadata=credentials, deadline=20))

    def test_form(self):
        self.assertRegex(self.token, "^[0-9a-f]{64}$")
        self.assertEqual(self.token, self.client.Sandboxes.GetAccess(sandbox_id=self.box).access_token)
        self.assertNotEqual(self.token, self.client.Sandboxes.GetAccess(sandbox_id=self.new_box()).access_token)

    def test_opens_its_sandbox(self):
        mine = metadata(self.box, self.token)
        self.assertTrue(self.run_with(mine))
        self.assertEqual(self.bearer.Sandboxes.Get(sandbox_id=self.box, grpc_metadata=mine).id, self.box)
        self.assertTrue(self.bearer.Files.Stat(sandbox_id=self.box, path=b"/tmp", grpc_metadata=mine).path)
        actions = {(r.action, r.actor) for r in self.client.Audit.List(sandbox_id=self.box).records}
        self.assertIn(("paddock.v1.Processes/Start", "access-token"), actions)

    def test_opens_nothing_else(self):
        mine, other = metadata(self.box, self.token), self.new_box()
        self.refused(Code.NOT_FOUND, self.bearer.Sandboxes.Get, sandbox_id=other, grpc_metadata=mine)
        self.refused(Code.NOT_FOUND, lambda: self.run_with(mine, other))
        for path in set(all_methods()) - OPENED:
            if path.startswith("/grpc.health") or path.endswith("/UploadBuildFiles"):
                continue  # for everybody; the latter wants a token of its own (test_builds)
            with self.subTest(path):
                with self.assertRaises(grpc.RpcError) as caught:
                    reply = self.bearer.call(path, empty_requests(path), deadline=5, grpc_metadata=mine)
                    if hasattr(reply, "__next__"):
                        next(reply)
                self.assertEqual(caught.exception.code(), Code.PERMISSION_DENIED)

    def test_wrong_ones(self):
        other = self.new_box()
        foreign = self.instance.tenant(unique("tokens"))
        theirs = foreign.create().id
        texts = set()
        for box, token in ((other, self.token), (self.box, self.token[:-1]), (self.box, self.token + "0"), (self.box, self.token.upper()),
                           (self.box, ""), (self.box, "0" * 64), ("", self.token), ("i" * 21, self.token), (theirs, self.token)):
            with self.subTest(box=box, token=token[:8]):
                texts.add(self.refused(Code.UNAUTHENTICATED, self.bearer.Sandboxes.Get, sandbox_id=self.box, grpc_metadata=metadata(box, token)))
        texts.add(self.refused(Code.UNAUTHENTICATED, self.bearer.Sandboxes.Get, sandbox_id=self.box, grpc_metadata=[("x-access-token", self.token)]))
        self.assertEqual(len(texts), 1, texts)
        # A key does not make up for a wrong token.
        self.refused(Code.UNAUTHENTICATED, self.client.Sandboxes.Get, sandbox_id=self.box,
                     grpc_metadata=metadata(self.box, "0" * 64) + [("authorization", "Bearer " + self.client.key)])

    def test_ends_with_the_sandbox(self):
        box = self.new_box()
        credentials = metadata(box, self.client.Sandboxes.GetAccess(sandbox_id=box).access_token)
        self.assertEqual(self.bearer.Sandboxes.Get(sandbox_id=box, grpc_metadata=credentials).id, box)
        self.client.Sandboxes.Kill(sandbox_id=box)
        self.refused(Code.UNAUTHENTICATED, self.bearer.Sandboxes.Get, sandbox_id=box, grpc_metadata=credentials)
        self.refused(Code.FAILED_PRECONDITION, self.client.Sandboxes.GetAccess, sandbox_id=box)

    def test_foreign_sandbox(self):
        stranger = self.instance.tenant(unique("stranger"))
        self.refused(Code.NOT_FOUND, stranger.Sandboxes.GetAccess, sandbox_id=self.box)


class SdkKeys(Case):
    SANDBOX = False

    def test_both_spellings(self):
        reply = self.instance.admin.Admin.CreateKey(tenant=self.tenant)
        self.assertRegex(reply.sdk_secret, "^e2b_[0-9a-f]{118}$")
        for text in (reply.secret, reply.sdk_secret):
            client = self.instance.client(key=text)
            self.assertEqual(client.Admin.WhoAmI().tenant, self.tenant)
        wrong = reply.sdk_secret[:-1] + ("0" if reply.sdk_secret[-1] != "0" else "1")
        for text in (wrong, reply.sdk_secret[:-1], reply.sdk_secret + "0", reply.sdk_secret.upper(), "e2b_" + "z" * 118, "e2b_" + "0" * 118, "e2b_"):
            with self.subTest(text=text[:12], length=len(text)):
                self.refused(Code.UNAUTHENTICATED, self.instance.client(key=text).Admin.WhoAmI)
        self.instance.admin.Admin.RevokeKey(key_id=reply.key.id)
        for text in (reply.secret, reply.sdk_secret):
            self.refused(Code.UNAUTHENTICATED, self.instance.client(key=text).Admin.WhoAmI)
