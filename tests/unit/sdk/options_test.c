#include "test.h"

#include "sdk/cli/cli.h"
#include <errno.h>
#include <string.h>

static int parse(struct args *args, const char *name, struct pdk_error *err, char **argv)
{
	int argc = 0;

	while (argv[argc])
		argc++;
	return args_parse(args, command_find(commands, name), argc, argv, err);
}

#define PARSE(args, name, err, ...) parse(args, name, err, (char *[]){(char *)name, __VA_ARGS__, NULL})
#define WORD(text) ((char *)(text))

static void options_of_a_command_line_inside_are_not_ours(void **state)
{
	struct pdk_error err = {0};
	struct args args;

	assert_int_equal(PARSE(&args, "exec", &err, WORD("-u"), WORD("root"), WORD("iabc"), WORD("--timeout"),
			       WORD("3s"), WORD("ls"), WORD("-l"), WORD("--help"), WORD("-u")),
			 0);
	assert_string_equal(args_value(&args, "user"), "root");
	assert_string_equal(args_value(&args, "timeout"), "3s");
	assert_false(args_has(&args, "help"));
	assert_int_equal(args.argc, 5);
	assert_string_equal(args.argv[0], "iabc");
	assert_string_equal(args.argv[2], "-l");
	assert_string_equal(args.argv[4], "-u");
	args_clear(&args);
}

static void says_what_was_meant(void **state)
{
	struct pdk_error err = {0};
	struct args args;

	assert_int_equal(PARSE(&args, "create", &err, WORD("--memroy"), WORD("1G")), -EINVAL);
	assert_string_equal(err.text, "unknown option --memroy; did you mean --memory?");
	args_clear(&args);
	assert_int_equal(PARSE(&args, "create", &err, WORD("--h"), WORD("x")), -EINVAL);
	assert_string_equal(err.text, "option --h may be more than one; write it out");
	args_clear(&args);
	assert_int_equal(PARSE(&args, "list", &err, WORD("--quiet=yes")), -EINVAL);
	assert_string_equal(err.text, "option --quiet takes no value");
	args_clear(&args);
	assert_int_equal(PARSE(&args, "list", &err, WORD("--nothing-like-it")), -EINVAL);
	assert_string_equal(err.text, "unknown option --nothing-like-it");
	args_clear(&args);
}

static void two_dashes_end_the_options(void **state)
{
	struct pdk_error err = {0};
	struct args args;

	assert_int_equal(PARSE(&args, "exec", &err, WORD("iabc"), WORD("--"), WORD("-x"), WORD("--"), WORD("y")), 0);
	assert_int_equal(args.argc, 4);
	assert_string_equal(args.argv[1], "-x");
	assert_string_equal(args.argv[2], "--");
	args_clear(&args);
	assert_int_equal(PARSE(&args, "run", &err, WORD("-e"), WORD("--"), WORD("true"), WORD("-e")), 0);
	assert_string_equal(args_value(&args, "env"), "--");
	assert_int_equal(args.argc, 2);
	args_clear(&args);
}

static void two_dashes_may_come_first(void **state)
{
	struct pdk_error err = {0};
	struct args args;

	assert_int_equal(PARSE(&args, "run", &err, WORD("--"), WORD("head"), WORD("-c"), WORD("--rm")), 0);
	assert_int_equal(args.argc, 3);
	assert_false(args_has(&args, "rm"));
	args_clear(&args);
}

static void options_may_stand_behind_operands(void **state)
{
	struct pdk_error err = {0};
	struct args args;
	int index = 0;

	assert_int_equal(PARSE(&args, "ls", &err, WORD("iabc:x"), WORD("-l"), WORD("--depth=3")), 0);
	assert_true(args_has(&args, "long"));
	assert_string_equal(args_value(&args, "depth"), "3");
	args_clear(&args);
	assert_int_equal(PARSE(&args, "create", &err, WORD("-e"), WORD("A=1"), WORD("-eB=2"), WORD("--env=C=3")), 0);
	assert_string_equal(args_next(&args, "env", &index), "A=1");
	assert_string_equal(args_next(&args, "env", &index), "B=2");
	assert_string_equal(args_next(&args, "env", &index), "C=3");
	assert_null(args_next(&args, "env", &index));
	args_clear(&args);
}

static void wrong_command_lines_are_refused(void **state)
{
	struct pdk_error err = {0};
	struct args args;

	assert_int_equal(PARSE(&args, "list", &err, WORD("--nonsense")), -EINVAL);
	args_clear(&args);
	assert_non_null(strstr(err.text, "--nonsense"));
	assert_int_equal(PARSE(&args, "list", &err, WORD("-Z")), -EINVAL);
	args_clear(&args);
	assert_int_equal(PARSE(&args, "create", &err, WORD("--memory")), -EINVAL);
	args_clear(&args);
	assert_non_null(strstr(err.text, "needs a value"));
	assert_int_equal(PARSE(&args, "info", &err, WORD("a"), WORD("b")), -EINVAL);
	args_clear(&args);
	assert_int_equal(PARSE(&args, "exec", &err, WORD("a")), -EINVAL);
	args_clear(&args);
}

static void mistyped_commands_are_recognised(void **state)
{
	assert_string_equal(command_suggest(commands, "exce"), "exec");
	assert_string_equal(command_suggest(commands, "temlpate"), "template");
	assert_string_equal(command_suggest(commands, "comp"), "completion");
	assert_null(command_suggest(commands, "quixotic"));
	assert_null(command_suggest(commands, ""));
}

static void check_options(const struct option_spec *options, const struct option_spec *others)
{
	const struct option_spec *a, *b;

	for (a = options; a->name; a++) {
		assert_non_null(a->help);
		for (b = a + 1; b->name; b++) {
			assert_string_not_equal(a->name, b->name);
			assert_true(!a->letter || a->letter != b->letter);
		}
		for (b = others; b->name; b++) {
			assert_string_not_equal(a->name, b->name);
			assert_true(!a->letter || a->letter != b->letter);
		}
	}
}

static void check_command(const struct command *command)
{
	const struct command *sub;

	assert_non_null(command->summary);
	assert_non_null(command->synopsis);
	assert_non_null(command->options);
	assert_true(!command->run != !command->subcommands);
	check_options(command->options, global_options);
	for (sub = command->subcommands; sub && sub->name; sub++)
		check_command(sub);
}

static void the_table_is_sound(void **state)
{
	const struct command *command;

	for (command = commands; command->name; command++)
		check_command(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(options_of_a_command_line_inside_are_not_ours),
		cmocka_unit_test(says_what_was_meant),
		cmocka_unit_test(two_dashes_end_the_options),
		cmocka_unit_test(two_dashes_may_come_first),
		cmocka_unit_test(options_may_stand_behind_operands),
		cmocka_unit_test(wrong_command_lines_are_refused),
		cmocka_unit_test(mistyped_commands_are_recognised),
		cmocka_unit_test(the_table_is_sound),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
