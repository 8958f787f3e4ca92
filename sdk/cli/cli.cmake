# The paddock command, its completion scripts and its manual pages.
file(GLOB cli_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.c)
list(REMOVE_ITEM cli_sources ${CMAKE_CURRENT_LIST_DIR}/main.c)
add_library(paddock_cli STATIC ${cli_sources})
# What the code-interpreter recipe puts into its image is part of the command.
set(interpreter ${CMAKE_SOURCE_DIR}/sandbox/interpreter)
set(interpreter_files ${interpreter}/context.py ${interpreter}/driver.py ${interpreter}/javascript.js
  ${interpreter}/figures.py ${interpreter}/jupyter.py ${interpreter}/ready ${interpreter}/service.py ${interpreter}/start)
set(recipe_files ${CMAKE_CURRENT_BINARY_DIR}/recipe_files.c)
add_custom_command(OUTPUT ${recipe_files}
  COMMAND ${CMAKE_COMMAND} "-DFILES=${interpreter_files}" -DOUTPUT=${recipe_files} -P ${CMAKE_CURRENT_LIST_DIR}/recipe_files.cmake
  DEPENDS ${interpreter_files} ${CMAKE_CURRENT_LIST_DIR}/recipe_files.cmake VERBATIM)
target_sources(paddock_cli PRIVATE ${recipe_files})
target_link_libraries(paddock_cli PUBLIC paddock_options paddock_sdk
  PkgConfig::JANSSON PkgConfig::LIBARCHIVE PkgConfig::CRYPTO Threads::Threads m)
target_compile_definitions(paddock_cli PRIVATE PADDOCK_SBINDIR="${CMAKE_INSTALL_FULL_SBINDIR}")
add_executable(paddock ${CMAKE_CURRENT_LIST_DIR}/main.c)
target_link_libraries(paddock PRIVATE paddock_cli)
install(TARGETS paddock DESTINATION ${CMAKE_INSTALL_BINDIR})

# Written from the table of commands by the command itself.
set(completions ${CMAKE_CURRENT_BINARY_DIR}/completion)
add_custom_command(
  OUTPUT ${completions}/paddock ${completions}/_paddock ${completions}/paddock.fish
  COMMAND ${CMAKE_COMMAND} -E make_directory ${completions}
  COMMAND paddock completion bash > ${completions}/paddock
  COMMAND paddock completion zsh > ${completions}/_paddock
  COMMAND paddock completion fish > ${completions}/paddock.fish
  DEPENDS paddock)
add_custom_target(paddock_completion ALL
  DEPENDS ${completions}/paddock ${completions}/_paddock ${completions}/paddock.fish)
install(FILES ${completions}/paddock DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES ${completions}/_paddock DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions)
install(FILES ${completions}/paddock.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)

file(GLOB manuals CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/man/*.[1-8])
foreach(manual ${manuals})
  get_filename_component(name ${manual} NAME)
  string(REGEX MATCH "[1-8]$" section ${name})
  set(compressed ${CMAKE_CURRENT_BINARY_DIR}/man/${name}.gz)
  add_custom_command(OUTPUT ${compressed}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_CURRENT_BINARY_DIR}/man
    COMMAND gzip -9nc ${manual} > ${compressed} DEPENDS ${manual} VERBATIM)
  list(APPEND compressed_manuals ${compressed})
  install(FILES ${compressed} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section})
endforeach()
add_custom_target(paddock_manuals ALL DEPENDS ${compressed_manuals})
