# cmake -DAML=file.aml -DHEADER=file.hpp -P aml_to_header.cmake: bytes as a C++ array.
file(READ ${AML} hex HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1, " bytes "${hex}")
string(REGEX REPLACE "((0x.., )(0x.., )(0x.., )(0x.., )(0x.., )(0x.., )(0x.., )(0x.., ))" "\\1\n    " bytes "${bytes}")
file(WRITE ${HEADER}
     "// The board's DSDT in AML; made from dsdt.asl by iasl.\n#pragma once\n\nnamespace stasis {\n\n"
     "inline constexpr unsigned char kDsdtAml[] = {\n    ${bytes}};\n\n}  // namespace stasis\n")
