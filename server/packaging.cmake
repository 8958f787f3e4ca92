# The .deb: `cpack -G DEB` in the build folder. The daemons, the command line, units, two configuration files.
set(units ${CMAKE_BINARY_DIR}/systemd)
foreach(unit paddock-warden.service paddockd.service)
  configure_file(${CMAKE_CURRENT_LIST_DIR}/systemd/${unit}.in ${units}/${unit} @ONLY)
endforeach()
set(preview ${CMAKE_SOURCE_DIR}/preview)
configure_file(${preview}/systemd/paddock-ingress.service.in ${units}/paddock-ingress.service @ONLY)
set(PADDOCK_UNITDIR lib/systemd/system CACHE STRING "Where systemd units go, below the prefix")
install(FILES ${units}/paddock-warden.service ${units}/paddockd.service ${units}/paddock-ingress.service
  DESTINATION ${PADDOCK_UNITDIR})
install(FILES ${CMAKE_CURRENT_LIST_DIR}/systemd/paddock.tmpfiles DESTINATION lib/tmpfiles.d RENAME paddock.conf)
install(FILES ${CMAKE_CURRENT_LIST_DIR}/paddock.conf ${preview}/ingress.conf DESTINATION ${CMAKE_INSTALL_FULL_SYSCONFDIR}/paddock)
set(deb ${CMAKE_CURRENT_LIST_DIR}/deb)
add_custom_command(OUTPUT ${CMAKE_BINARY_DIR}/deb/changelog.gz
  COMMAND gzip -9nc ${deb}/changelog > ${CMAKE_BINARY_DIR}/deb/changelog.gz DEPENDS ${deb}/changelog VERBATIM)
add_custom_target(paddock_changelog ALL DEPENDS ${CMAKE_BINARY_DIR}/deb/changelog.gz)
install(FILES ${deb}/copyright ${CMAKE_BINARY_DIR}/deb/changelog.gz DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES ${deb}/lintian-overrides DESTINATION ${CMAKE_INSTALL_DATADIR}/lintian/overrides RENAME paddock)
# These two are made by commands of their own, which the stripping of targets passes by.
install(CODE "if(CMAKE_INSTALL_DO_STRIP)
  foreach(program init sudo)
    execute_process(COMMAND ${CMAKE_STRIP} \$ENV{DESTDIR}${PADDOCK_LIBEXECDIR}/paddock-\${program} COMMAND_ERROR_IS_FATAL ANY)
  endforeach()
endif()")

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME paddock)
set(CPACK_PACKAGE_VENDOR "Paddock")
set(CPACK_PACKAGE_CONTACT "Paddock maintainers <paddock@example.org>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_PACKAGE_DESCRIPTION "One daemon gives programs isolated computers over gRPC: commands,
 terminals, files, limits, an audit log. Sandboxes are namespaces, cgroups,
 seccomp and a copy-on-write root.")
set(CPACK_PACKAGING_INSTALL_PREFIX ${CMAKE_INSTALL_PREFIX})
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION admin)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS_POLICY ">=")
set(CPACK_DEBIAN_PACKAGE_DEPENDS "btrfs-progs, passwd, init-system-helpers (>= 1.54~)")
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "criu (>= 4.1), mmdebstrap, ca-certificates")
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
file(WRITE ${CMAKE_BINARY_DIR}/deb/conffiles "${CMAKE_INSTALL_FULL_SYSCONFDIR}/paddock/paddock.conf\n${CMAKE_INSTALL_FULL_SYSCONFDIR}/paddock/ingress.conf\n")
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA
  ${CMAKE_BINARY_DIR}/deb/conffiles
  ${deb}/triggers ${deb}/postinst ${deb}/prerm ${deb}/postrm)
include(CPack)
