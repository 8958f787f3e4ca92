#include "test.h"

#include "sdk/cli/paddockfile.h"
#include <stdio.h>
#include <string.h>

/* Files of builds: what each line becomes, and what is refused, by its name and line. */

static struct paddockfile file;
static struct pdk_error error;

static int parse(const char *text)
{
	paddockfile_clear(&file);
	error = (struct pdk_error){};
	return paddockfile_parse(text, strlen(text), "Paddockfile", &file, &error);
}

static void expect_step(size_t index, unsigned int line, const char *type, const char *args)
{
	char text[512] = "";

	assert_true(index < file.n_steps);
	for (size_t i = 0; i < file.steps[index].n_args; i++) {
		strcat(text, i ? "|" : "");
		strcat(text, file.steps[index].args[i]);
	}
	assert_string_equal(file.steps[index].type, type);
	assert_string_equal(text, args);
	assert_int_equal(file.steps[index].line, line);
}

static void expect_start(const char *text, const char *command)
{
	char whole[512];

	snprintf(whole, sizeof(whole), "FROM base\n%s", text);
	assert_int_equal(parse(whole), 0);
	if (command)
		assert_string_equal(file.start_command, command);
	else
		assert_null(file.start_command);
}

static void expect_error(const char *text, const char *says)
{
	assert_true(parse(text) < 0);
	assert_string_equal(error.text, says);
	assert_int_equal(file.n_steps, 0);
	assert_null(file.from);
}

/* "FROM base", and this in the second line. */
static void expect_refusal(const char *line, const char *says)
{
	char text[512], wanted[512];

	snprintf(text, sizeof(text), "FROM base\n%s\n", line);
	snprintf(wanted, sizeof(wanted), "Paddockfile:2: %s", says);
	expect_error(text, wanted);
}

static void every_instruction(void **state)
{
	assert_int_equal(parse("# a comment\r\n\n  from base:v1  \r\n"
			       "ENV A=1 B=\"two words\" C='it is' D=$A\\ b\n"
			       "ENV OLD the rest of $A\n"
			       "WORKDIR /srv/app\n"
			       "USER root\n"
			       "RUN apt-get update && \\\n  # why\n\n    apt-get install \\  \n x\n"
			       "RUN [\"echo\", \"it's\", \"$HOME\"]\n"
			       "RUN [ -f x ] || echo 3 <<< here $((1 << 2))\n"
			       "COPY --chown=user:user --chmod=755 a.txt 'b c' dest/\n"
			       "COPY [\"with space\", \"/to\"]\n"
			       "CMD [\"python3\", \"-m\", \"http.server\"]"),
			 0);
	assert_string_equal(file.from, "base:v1");
	assert_int_equal(file.n_steps, 9);
	expect_step(0, 4, "ENV", "A|1|B|two words|C|it is|D|$A b");
	expect_step(1, 5, "ENV", "OLD|the rest of $A");
	expect_step(2, 6, "WORKDIR", "/srv/app");
	expect_step(3, 7, "USER", "root");
	expect_step(4, 8, "RUN", "apt-get update &&     apt-get install  x");
	expect_step(5, 13, "RUN", "echo 'it'\\''s' '$HOME'");
	expect_step(6, 14, "RUN", "[ -f x ] || echo 3 <<< here $((1 << 2))");
	expect_step(7, 15, "COPY", "a.txt|b c|dest/");
	assert_string_equal(file.steps[7].owner, "user:user");
	assert_string_equal(file.steps[7].mode, "755");
	expect_step(8, 16, "COPY", "with space|/to");
	assert_null(file.steps[8].owner);
	assert_string_equal(file.start_command, "python3 -m http.server");
	assert_int_equal(file.start_line, 17);
}

static void start_commands(void **state)
{
	expect_start("", NULL);
	expect_start("CMD exec serve \"$PORT\"", "exec serve \"$PORT\"");
	expect_start("CMD one\nCMD [\"two\"]", "two");
	expect_start("CMD []", NULL);
	expect_start("ENTRYPOINT [\"serve\", \"-p\"]", "serve -p");
	expect_start("ENTRYPOINT [\"serve\", \"-p\"]\nCMD [\"80 80\"]", "serve -p '80 80'");
	expect_start("CMD echo x\nENTRYPOINT [\"serve\"]", "serve /bin/sh -c 'echo x'");
	expect_start("CMD [\"x\"]\nENTRYPOINT serve it", "serve it");
}

static void what_is_refused(void **state)
{
	expect_error("", "Paddockfile:1: there is no FROM");
	expect_error("# only a comment\n", "Paddockfile:1: there is no FROM");
	expect_error("\n\nRUN x\nFROM base", "Paddockfile:3: RUN: FROM comes first");
	expect_error("# escape=`\nFROM base",
		     "Paddockfile:1: another escape character than '\\' is not available here");
	expect_error("FROM --platform=linux/amd64 base", "Paddockfile:1: FROM: --platform is not available here");
	expect_error("FROM base AS build", "Paddockfile:1: FROM takes one template, and nothing after it: 'AS build'");
	expect_error("FROM $BASE", "Paddockfile:1: FROM: variables are not replaced here: '$BASE'");
	expect_refusal("FROM other", "FROM: a build has one stage");
	expect_refusal("RUN --mount=type=cache,target=/x true", "RUN: --mount is not available here");
	expect_refusal("RUN <<EOF", "RUN: here-documents are not available here; COPY a script and run that");
	expect_refusal("RUN cat <<-'EOF' > x",
		       "RUN: here-documents are not available here; COPY a script and run that");
	expect_refusal("COPY --from=build a b", "COPY: --from is not available here");
	expect_refusal("COPY --chmod a b", "COPY: --chmod needs a value");
	expect_refusal("COPY a", "COPY takes one or more sources, and a target");
	expect_refusal("COPY https://a/b c", "COPY takes files of the folder, not 'https://a/b'");
	expect_refusal("COPY $A b", "COPY: variables are not replaced here: '$A'");
	expect_refusal("COPY <<EOF /x", "COPY: here-documents are not available here");
	expect_refusal("ENV A", "ENV: 'A' has no value; write NAME=VALUE");
	expect_refusal("ENV A=1 B", "ENV: 'B' has no value; write NAME=VALUE");
	expect_refusal("ENV A='$B'",
		       "ENV: in the value of A a '$' is to stay before what looks like a name, which cannot be "
		       "said to a build");
	expect_refusal("ENV A=\\$B",
		       "ENV: in the value of A a '$' is to stay before what looks like a name, which cannot be "
		       "said to a build");
	expect_refusal("ENV A=\"x", "a quote is not closed");
	expect_refusal("WORKDIR a b", "WORKDIR takes one word");
	expect_refusal("WORKDIR", "WORKDIR takes one word");
	expect_refusal("USER user:group", "USER: a group is not available here: 'user:group'");
	expect_refusal("RUN", "RUN takes a command");
	expect_refusal("CMD", "CMD takes a command");
	expect_refusal("EXPOSE 80", "EXPOSE is not available here: `paddock preview` opens a port of a sandbox");
	expect_refusal("add a b",
		       "ADD is not available here: COPY takes files of the folder; unpack an archive with RUN");
	expect_refusal("RUNN x", "there is no instruction 'RUNN'; did you mean RUN?");
	expect_refusal("<html>", "there is no instruction '<HTML>'");
	assert_int_equal(parse("FROM base\nENV A='$ 5' B=\\$5\n"), 0); /* no name behind it */
	expect_step(0, 2, "ENV", "A|$ 5|B|$5");
}

static void bounds(void **state)
{
	static char text[PADDOCKFILE_MAX + 16];
	size_t length = 0;

	strcpy(text, "FROM base\n");
	for (int i = 0; i < PADDOCKFILE_STEPS_MAX; i++)
		strcat(text, "RUN x\n");
	assert_int_equal(parse(text), 0);
	strcat(text, "RUN x\n");
	expect_error(text, "Paddockfile:130: a build has at most 128 steps");
	assert_true(paddockfile_parse("FROM base\n\0RUN x", 16, "Paddockfile", &file, &error) < 0);
	assert_string_equal(error.text, "Paddockfile:1: it is no text");
	while (length < PADDOCKFILE_MAX + 1)
		text[length++] = ' ';
	text[length] = '\0';
	expect_error(text, "Paddockfile:1: it is larger than 1048576 bytes");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_instruction),
		cmocka_unit_test(start_commands),
		cmocka_unit_test(what_is_refused),
		cmocka_unit_test(bounds),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	paddockfile_clear(&file);
	return failed;
}
