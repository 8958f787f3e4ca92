# Write a file as a C array: cmake -DIN=file -DOUT=header -DNAME=identifier -P embed.cmake
file(READ ${IN} hex HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
string(REGEX REPLACE "(................................................................................)" "\\1\n" bytes "${bytes}")
file(WRITE ${OUT} "#include <stdint.h>\n\nstatic const uint8_t ${NAME}[] = {\n${bytes}\n};\n")
