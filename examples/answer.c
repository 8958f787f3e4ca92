#include <err.h>
#include <paddock.h>
#include <stdio.h>

int main(void)
{
	Paddock__V1__CreateSandboxRequest create = PADDOCK__V1__CREATE_SANDBOX_REQUEST__INIT;
	Paddock__V1__StartProcessRequest start = PADDOCK__V1__START_PROCESS_REQUEST__INIT;
	Paddock__V1__KillSandboxRequest kill = PADDOCK__V1__KILL_SANDBOX_REQUEST__INIT;
	char *argv[] = {"python3", "-c", "print(6 * 7)"};
	struct paddock_result result;
	Paddock__V1__Sandbox *sandbox, *ended;
	struct pdk_error error = {0};
	struct paddock_client *client = paddock_connect(NULL, NULL, &error);

	if (!client || paddock_sandbox_create(client, &create, &sandbox, &error) < 0)
		errx(1, "%s", error.text);
	start.sandbox_id = sandbox->id;
	start.argv = argv;
	start.n_argv = 3;
	if (paddock_run(client, &start, 1 << 20, &result, &error) < 0)
		errx(1, "%s", error.text);
	fwrite(result.out, 1, result.out_length, stdout);
	paddock_result_clear(&result);
	kill.sandbox_id = sandbox->id;
	if (paddock_sandbox_kill(client, &kill, &ended, &error) == 0)
		paddock_free(ended);
	paddock_free(sandbox);
	paddock_close(client);
	return 0;
}
