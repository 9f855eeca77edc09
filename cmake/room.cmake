# stasis_room(NAME USES rooms… LINKS libraries…): the object library of src/NAME, and its unit tests.
#
# Every *.cpp under src/NAME belongs to the room; *_test.cpp go to the test binary test_NAME.
# A room sees only the rooms it USES: each brings its own include path, `rooms/NAME/NAME -> src/NAME`,
# so an undeclared #include "room/…" does not compile (tools/check_layers.py says why in words).
find_package(GTest REQUIRED)
include(GoogleTest)

function(stasis_room name)
  cmake_parse_arguments(ROOM "" "" "USES;LINKS" ${ARGN})
  set(dir ${CMAKE_SOURCE_DIR}/src/${name})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${dir}/*.cpp)
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_test\\.cpp$")
  list(FILTER tests INCLUDE REGEX "_test\\.cpp$")

  set(view ${CMAKE_BINARY_DIR}/rooms/${name})
  file(MAKE_DIRECTORY ${view})
  file(CREATE_LINK ${dir} ${view}/${name} SYMBOLIC)

  if(sources)
    add_library(${name} OBJECT ${sources})
    set(scope PUBLIC)
  else()
    add_library(${name} INTERFACE)
    set(scope INTERFACE)
  endif()
  target_include_directories(${name} ${scope} ${view})
  target_link_libraries(${name} ${scope} ${ROOM_USES} ${ROOM_LINKS})
  set_property(GLOBAL APPEND PROPERTY STASIS_ROOMS ${name})

  if(tests AND BUILD_TESTING)
    add_executable(test_${name} ${tests})
    stasis_objects(test_${name} ${name})
    target_link_libraries(test_${name} PRIVATE GTest::gtest GTest::gtest_main)
    target_include_directories(test_${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests/support)
    if(NOT name STREQUAL cpu)  # whose tests may instantiate handlers, which need optimized sibling calls
      target_compile_options(test_${name} PRIVATE -O0)
    endif()
    target_compile_definitions(test_${name} PRIVATE STASIS_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
    gtest_discover_tests(test_${name} TEST_PREFIX "${name}." DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 300)
  endif()
endfunction()

# Object libraries do not pass their objects on: link a room and all it uses, each once.
function(stasis_objects target)
  get_property(rooms GLOBAL PROPERTY STASIS_ROOMS)
  set(todo ${ARGN})
  set(seen)
  while(todo)
    list(POP_FRONT todo room)
    if(room IN_LIST seen)
      continue()
    endif()
    list(APPEND seen ${room})
    get_target_property(uses ${room} INTERFACE_LINK_LIBRARIES)
    foreach(used IN LISTS uses)
      if(used IN_LIST rooms)
        list(APPEND todo ${used})
      endif()
    endforeach()
  endwhile()
  target_link_libraries(${target} PRIVATE ${seen} Threads::Threads)
endfunction()
