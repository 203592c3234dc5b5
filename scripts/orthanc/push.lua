-- Hands what Orthanc receives on to medsearch, in the way that MEDSEARCH_PUSH names:
--   dicomweb  each stable study as a job, by STOW-RS (the default)
--   peer      each stable study as a job, one instance after the other
--   file      each instance as it comes, one request each
-- A push that fails is not tried again. README.md says how nothing gets lost.
local way = os.getenv("MEDSEARCH_PUSH") or "dicomweb"

-- The jobs run beside Orthanc's own work; Lua only starts them.
function OnStableStudy(study, tags, metadata)
  local body = DumpJson({ Resources = { study }, Synchronous = false }, true)
  if way == "dicomweb" then
    RestApiPost("/dicom-web/servers/medsearch/stow", body)
  elseif way == "peer" then
    RestApiPost("/peers/medsearch/store", body)
  end
end

-- There is ONE queue for all of Lua: while this waits for medsearch, the next instance waits too.
function OnStoredInstance(instance, tags, metadata, origin)
  if way ~= "file" then
    return
  end
  -- Not before Orthanc 1.11.1: to call a function that is not there would end the callback without a word.
  if SetHttpTimeout then
    SetHttpTimeout(30)
  end
  local file = RestApiGet("/instances/" .. instance .. "/file")
  -- Always with a header or two: an EMPTY table of headers aborts the whole of Orthanc 1.10.1.
  HttpPost(os.getenv("MEDSEARCH_URL") .. "/instances", file, {
    ["Content-Type"] = "application/dicom",
    ["Authorization"] = "Bearer " .. os.getenv("MEDSEARCH_KEY"),
  })
end
